package elector_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// BenchmarkIdleStandby shows what one standby costs beyond its client: goroutines, and bytes of heap and stack.
func BenchmarkIdleStandby(b *testing.B) {
	const standbys = 1000
	for b.Loop() {
		api := electortest.NewServer()
		ctx, stop := context.WithCancel(b.Context())
		run := func(name string) *elector.Elector {
			e, err := elector.New(api.Client(name).CoordinationV1(), elector.Options{
				Namespace: namespace, Name: "bench", Identity: name,
				Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
			})
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = e.Run(ctx) }()
			return e
		}
		leader := run("leader")
		for !leader.IsLeader() {
			time.Sleep(time.Millisecond)
		}
		for i := range standbys { // clients and their own cost first
			api.Client(fmt.Sprint(i)).CoordinationV1()
		}
		bytes, goroutines := inUse()
		all := make([]*elector.Elector, standbys)
		for i := range all {
			all[i] = run(fmt.Sprint(i))
		}
		for _, e := range all {
			for e.Leader() == "" {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second) // the watches open
		bytesAfter, goroutinesAfter := inUse()
		b.ReportMetric(float64(goroutinesAfter-goroutines)/standbys, "goroutines/standby")
		b.ReportMetric(float64(bytesAfter-bytes)/standbys/1024, "KiB/standby")
		stop()
		api.Close()
		runtime.KeepAlive(all)
	}
}

func inUse() (bytes int64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
}
