package fleet

import "time"

// Report is what a run measured. Figures of AIAS's process are 0 when it was started by somebody else.
type Report struct {
	OK           bool           `json:"ok"` // every attestation was answered, and trusted
	Nodes        int            `json:"nodes"`
	Connections  int            `json:"connections"` // kept open
	InFlight     int            `json:"inFlight"`
	NewEntries   int            `json:"newEntries,omitempty"`
	Full         bool           `json:"full,omitempty"`
	Tags         bool           `json:"tags,omitempty"`
	Proven       int            `json:"proven,omitempty"` // nodes that have proven their asset tags at the end
	Attestations int            `json:"attestations"`     // answered in the measured part
	Trusted      int            `json:"trusted"`
	Errors       map[string]int `json:"errors,omitempty"` // what was not trusted or not answered, by kind
	Opened       int            `json:"opened"`           // connections in the measured part
	Resumed      int            `json:"resumed"`          // of them, with a resumed TLS session
	Enrolment    Costs          `json:"enrolment"`        // of one node: enrolment and first attestation, whole logs
	Steady       Costs          `json:"steady"`           // of one attestation
	Latency      Latency        `json:"latency"`
	Memory       Memory         `json:"memory"`
}

// Costs are those of a number of equal things.
type Costs struct {
	Seconds         float64 `json:"seconds"`
	PerSecond       float64 `json:"perSecond"`
	AIASMicros      float64 `json:"aiasMicros"`      // CPU of AIAS for each, user and system
	GeneratorMicros float64 `json:"generatorMicros"` // CPU of the generator for each
	AIASCores       float64 `json:"aiasCores"`       // CPU of AIAS by wall clock
	GeneratorCores  float64 `json:"generatorCores"`
}

// Latency is from the quote to the answer, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Memory is that of AIAS, in bytes.
type Memory struct {
	Few           MemoryPoint `json:"few"`           // the first 64 nodes enrolled, no connection open
	Enrolled      MemoryPoint `json:"enrolled"`      // all nodes enrolled, no connection open
	Connected     MemoryPoint `json:"connected"`     // with the kept connections open
	After         MemoryPoint `json:"after"`         // after the measured part
	PerNode       int64       `json:"perNode"`       // live bytes of an enrolled node: Enrolled less Few; 0 when the fleet is too small to tell
	PerConnection int64       `json:"perConnection"` // live bytes that an open connection adds: Connected less Enrolled
	PerNodeAfter  int64       `json:"perNodeAfter"`  // live bytes of a node with the connections that are open after the measured part: After less Few
}

// MemoryPoint is the memory of AIAS at one moment.
type MemoryPoint struct {
	Live int64 `json:"live"` // heap and stacks that the garbage collector found in use
	RSS  int64 `json:"rss"`  // resident set of the process
}

func (m *Memory) divide(r *Report) {
	if r.Nodes >= 4*settleNodes {
		m.PerNode = (m.Enrolled.Live - m.Few.Live) / int64(r.Nodes-settleNodes)
		m.PerNodeAfter = (m.After.Live - m.Few.Live) / int64(r.Nodes-settleNodes)
	}
	if r.Connections >= 4*settleNodes && m.Connected.Live > 0 {
		m.PerConnection = (m.Connected.Live - m.Enrolled.Live) / int64(r.Connections)
	}
}

func (s spent) costs(n int) Costs {
	if n == 0 || s.wall <= 0 {
		return Costs{Seconds: s.wall.Seconds()}
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
	return Costs{
		Seconds: s.wall.Seconds(), PerSecond: float64(n) / s.wall.Seconds(), AIASMicros: each(s.aias), GeneratorMicros: each(s.own),
		AIASCores: s.aias.Seconds() / s.wall.Seconds(), GeneratorCores: s.own.Seconds() / s.wall.Seconds(),
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
