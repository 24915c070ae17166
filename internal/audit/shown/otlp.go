package shown

import (
	"strconv"
	"strings"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// maxValue and maxRaw bound one attribute, and the kernel's records in one, in bytes.
const (
	maxValue = 4 << 10
	maxRaw   = 64 << 10
)

// attributes gathers those that are not empty.
type attributes []*common.KeyValue

func (a *attributes) text(key, value string) { a.most(key, value, maxValue) }

func (a *attributes) most(key, value string, most int) {
	if value == "" {
		return
	}
	if len(value) > most {
		value = value[:most] + "..."
	}
	value = strings.ToValidUTF8(value, "\uFFFD") // or it would be no protobuf
	*a = append(*a, &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}})
}

func (a *attributes) number(key string, value uint64) {
	v := &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(value)}} //nolint:gosec // numbers of entries and processes
	*a = append(*a, &common.KeyValue{Key: key, Value: v})
}

// Record is the entry in the data model of OpenTelemetry's logs, with the names of its semantic conventions where there are any. log.record.uid is the same
// whenever the entry is sent.
func Record(v *Entry, received time.Time) *logs.LogRecord {
	e, c := v.Entry, &v.Entry.Context
	r := &logs.LogRecord{
		TimeUnixNano: nanos(e.Time), ObservedTimeUnixNano: nanos(received), EventName: "touchstone.audit." + e.Kind.String(),
		SeverityNumber: logs.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO",
		Body: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: Clean(v.Words())}},
	}
	if e.Kind == chain.KindGap {
		r.SeverityNumber, r.SeverityText = logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	var a attributes
	a.text("log.record.uid", v.ID)
	a.number("audit.seq", e.Seq)
	for _, p := range [][2]string{
		{"k8s.namespace.name", c.Namespace}, {"k8s.pod.name", c.Pod}, {"k8s.pod.uid", c.PodUID}, {"k8s.container.name", c.Container}, {"container.id", c.ContainerID},
		{"container.image.name", c.Image}, {"container.image.repo_digests", c.ImageDigest}, {"systemd.unit", c.Unit}, {"user.name", c.User},
		{"audit.session", c.Session}, {"audit.terminal", c.Terminal}, {"audit.keys", strings.Join(v.Keys(), ",")},
	} {
		a.text(p[0], p[1])
	}
	if v.Event != nil {
		v.processAttributes(&a)
	}
	r.Attributes = a
	return r
}

func (v *Entry) processAttributes(a *attributes) {
	a.text("audit.id", v.Event.ID.String())
	a.text("process.executable.path", v.field("exe"))
	if argv, ok := v.Event.Argv(); ok {
		var args []string
		for _, arg := range argv.Args {
			args = append(args, string(arg))
		}
		a.text("process.command_line", strings.Join(args, " "))
	}
	if p, ok := v.Event.Process(); ok {
		a.number("process.pid", uint64(p.PID))
		a.text("user.id", strconv.FormatUint(uint64(p.UID), 10))
		a.text("audit.auid", v.Login())
	}
	a.most("log.record.original", string(v.Entry.Body), maxRaw)
}

func nanos(t time.Time) uint64 {
	if n := t.UnixNano(); n > 0 {
		return uint64(n)
	}
	return 0
}

// Logs puts records of one node together.
func Logs(node string, records []*logs.LogRecord) *logs.LogsData {
	var a attributes
	a.text("service.name", "touchstone")
	a.text("host.name", node)
	return &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: a},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "touchstone.audit"}, LogRecords: records}},
	}}}
}

// OTLP is one line of OTLP's JSON, as the collector's file receiver reads it.
func OTLP(v *Entry) string {
	b, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(Logs(v.Node, []*logs.LogRecord{Record(v, v.Entry.Time)}))
	if err != nil {
		return "{}" // its texts are UTF-8: not reached
	}
	return string(b)
}
