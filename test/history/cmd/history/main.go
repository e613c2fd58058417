//go:build linux

// Command history runs clients against cells that are killed, and judges what they saw. See package history.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"quicproquo.dev/test/history"
	"quicproquo.dev/test/history/check"
	"quicproquo.dev/test/history/record"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	history.CleanUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var l history.Long
	file := flag.String("check", "", "judge this history and run nothing")
	flag.Uint64Var(&l.Seed, "seed", uint64(time.Now().Unix()), "the first round's seed; the next ones follow") //nolint:gosec // after 1970.
	flag.DurationVar(&l.For, "for", 10*time.Minute, "how long; a round that has begun ends")
	flag.IntVar(&l.Rounds, "rounds", 0, "how many rounds; 0: as many as fit")
	flag.StringVar(&l.Keep, "keep", "", "where histories go that are not right (default: the user's cache)")
	flag.BoolVar(&l.All, "all", false, "keep histories that are right, too")
	flag.StringVar(&l.Only, "only", "", "faults, or power: only such rounds")
	flag.Parse()
	if *file != "" {
		return judge(*file)
	}
	l.Out = os.Stdout
	return l.Run(ctx)
}

func judge(path string) error {
	h, err := record.Load(path)
	if err != nil {
		return err
	}
	r := check.History(h)
	fmt.Printf("%s, seed %d, %v: %d operations in %d parts\n", h.Name, h.Seed, h.Plan, r.Operations, r.Parts)
	if r.OK() {
		fmt.Println("there is an order that explains it")
		return nil
	}
	for _, f := range r.Findings {
		fmt.Println(f)
	}
	if err := history.Visualize(path, h, r); err != nil {
		return err
	}
	return fmt.Errorf("%d findings; see the pages beside %s", len(r.Findings), path)
}
