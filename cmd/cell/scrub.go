package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/store"
)

// errDamaged ends a scrub that found something.
var errDamaged = errors.New("stored rows are damaged, see above: restore them from a backup or a standby, or delete them; until then their channels are held back from their readers at that point")

func scrub() *cobra.Command {
	o := &scrubOptions{}
	c := &cobra.Command{Use: "scrub", Short: "Read and check everything stored: exit code 1 when something is damaged, and what", Args: cobra.NoArgs,
		Long: `Read every stored message and every sealed value and verify its checksum. What is damaged is printed with its place, never with
content. It may run beside servers. With --resume-file, one that was cut off goes on there.`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) }}
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "configuration file (required)")
	f.StringVar(&o.rate, "rate", "", `rows a second at most, such as "5000/s" (default: as fast as it goes)`)
	f.BoolVar(&o.json, "json", false, "print JSON: a line for each damaged row, and one at the end")
	f.StringVar(&o.resume, "resume-file", "", "file that holds how far the scrub has come; it is removed at the end")
	f.StringVar(&o.metrics, "metrics-file", "", "file to write the result to as metrics, such as of node_exporter's textfile collector")
	_ = c.MarkFlagRequired("config")
	return c
}

type scrubOptions struct {
	config, rate, resume, metrics string
	json                          bool
}

func (o *scrubOptions) run(c *cobra.Command) error {
	rate, err := parseRate(o.rate)
	if err != nil {
		return err
	}
	after, err := readPosition(o.resume)
	if err != nil {
		return err
	}
	config, err := server.LoadConfig(o.config)
	if err != nil {
		return err
	}
	st, err := server.OpenStore(c.Context(), config)
	if err != nil {
		return err
	}
	defer st.Close()
	out := c.OutOrStdout()
	var lost error // The first position that could not be written.
	report, err := st.Scrub(c.Context(), store.Scrub{Rate: rate, After: after, Found: func(d store.Damage) { o.print(out, d) },
		Progress: func(p store.ScrubPosition, _ store.ScrubReport) {
			if e := writePosition(o.resume, p); lost == nil {
				lost = e
			}
		}})
	o.summary(out, report, err == nil)
	switch {
	case err != nil:
		return fmt.Errorf("the scrub was cut off: %w", err)
	case lost != nil:
		return lost
	case report.Damaged > 0:
		err = errDamaged
	}
	return errors.Join(err, removePosition(o.resume), o.writeMetrics(report))
}

func (o *scrubOptions) print(w io.Writer, d store.Damage) {
	if o.json {
		printJSON(w, struct {
			Damage store.Damage `json:"damage"`
		}{d})
		return
	}
	switch {
	case d.Channel != "":
		fmt.Fprintf(w, "damaged: message %d of channel %s (%s, page %d): %s\n", d.Seq, d.Channel, d.Table, d.Page, d.What)
	case d.Row != "":
		fmt.Fprintf(w, "damaged: %s %s of %s (page %d): %s\n", d.Column, d.Row, d.Table, d.Page, d.What)
	default:
		fmt.Fprintf(w, "damaged: page %d of %s: %s\n", d.Page, d.Table, d.What)
	}
}

func (o *scrubOptions) summary(w io.Writer, r store.ScrubReport, whole bool) {
	if o.json {
		printJSON(w, struct {
			Report store.ScrubReport `json:"report"`
			Whole  bool              `json:"whole"`
		}{r, whole})
		return
	}
	fmt.Fprintf(w, "checked %d messages (%d bytes) and %d sealed values on %d pages: %d damaged\n", r.Messages, r.Bytes, r.Sealed, r.Pages, r.Damaged)
}

// printJSON prints one line. That nobody reads it is no reason to stop a scrub.
func printJSON(w io.Writer, v any) {
	if b, err := json.Marshal(v); err == nil {
		fmt.Fprintf(w, "%s\n", b)
	}
}

// writeMetrics replaces the file at once, so that nobody reads half of it.
func (o *scrubOptions) writeMetrics(r store.ScrubReport) error {
	if o.metrics == "" {
		return nil
	}
	text := fmt.Sprintf("# HELP qpq_scrub_damaged Damaged rows and pages that the last whole scrub found.\n# TYPE qpq_scrub_damaged gauge\nqpq_scrub_damaged %d\n"+
		"# HELP qpq_scrub_rows Messages and sealed values that it read.\n# TYPE qpq_scrub_rows gauge\nqpq_scrub_rows %d\n", r.Damaged, r.Messages+r.Sealed)
	return replaceFile(o.metrics, []byte(text))
}

func parseRate(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "/s"))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf(`--rate %q: write rows a second, such as "5000/s"`, text)
	}
	return n, nil
}

func readPosition(path string) (p store.ScrubPosition, err error) {
	if path == "" {
		return p, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return p, fmt.Errorf("--resume-file %s: %w; remove it to begin anew", path, err)
	}
	return p, nil
}

func writePosition(path string, p store.ScrubPosition) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return replaceFile(path, b)
}

func removePosition(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func replaceFile(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
