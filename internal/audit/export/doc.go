// Package export sends audit events from the archive to other systems, as they come: syslog (RFC 5424 over TLS or TCP, RFC 5425 and 6587) and OpenTelemetry
// logs (OTLP over HTTP).
//
// Each entry arrives at least once. A destination has a cursor for each node, which is on disk and goes on only when the destination has the entries: the
// archive is the buffer, however long the destination is away. Whoever needs each entry once leaves out those whose ID he has (NODE/CHAIN/NUMBER). What
// the archive has no more when it could be sent is sent as a gap that names it.
//
// Syslog has no acknowledgement. An entry counts as taken when the other end's TCP acknowledged it and the connection was still there two seconds later; when
// it breaks, everything since is sent again. Who needs more takes OTLP.
package export
