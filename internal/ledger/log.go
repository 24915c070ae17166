package ledger

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/klog/v2"
)

// warnings passes on what is worse than information: Tessera tells through klog what it does, and what goes wrong.
type warnings struct{ slog.Handler }

// Enabled leaves information out.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// useLog sends what Tessera logs to the default log, once in a process.
var useLog = sync.OnceFunc(func() { klog.SetSlogLogger(slog.New(warnings{slog.Default().Handler()})) })
