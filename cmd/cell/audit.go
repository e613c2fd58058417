package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

// leastKept is the shortest retention: chains that may still go on must not be pruned away under their writers.
const leastKept = 48 * time.Hour

func auditLog() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Verify, export and prune the audit log"}
	c.AddCommand(auditVerify(), auditExport(), auditPrune(), auditKey(), auditSubject())
	return c
}

// withAudit is a command on the audit log of --config's cell.
func withAudit(use, short string, run func(c *cobra.Command, a *server.Audit) error) *cobra.Command {
	var file string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return onAudit(c, file, run)
	}}
	c.Flags().StringVar(&file, "config", "", "configuration file (required)")
	_ = c.MarkFlagRequired("config")
	return c
}

func onAudit(c *cobra.Command, file string, run func(c *cobra.Command, a *server.Audit) error) error {
	config, err := server.LoadConfig(file)
	if err != nil {
		return err
	}
	a, err := server.OpenAudit(c.Context(), config)
	if err != nil {
		return err
	}
	defer a.Store.Close()
	return run(c, a)
}

func auditVerify() *cobra.Command {
	var config, file, keys string
	var against []string
	c := &cobra.Command{Use: "verify", Short: "Verify the audit log, or an export of it: exit code 1 and the first bad row when it was changed", Args: cobra.NoArgs,
		Long: `Verify the audit log of the cell of --config, or, without cell and database, an export (--file) with the public keys that
"cell audit key" prints (--public-key). With --against NUMBER:HASH it also has to be the log that had this checkpoint: that is
how one finds that the end was cut off, or that the database was restored to an earlier state.`,
		RunE: func(c *cobra.Command, _ []string) error {
			anchors, err := parseAnchors(against)
			switch {
			case err != nil:
				return err
			case file != "":
				return verifyFile(c, file, keys, anchors)
			case config == "":
				return errors.New("name the cell with --config, or an export with --file and --public-key")
			}
			return onAudit(c, config, func(c *cobra.Command, a *server.Audit) error { return verifyDatabase(c, a, anchors) })
		}}
	c.Flags().StringVar(&config, "config", "", "configuration file")
	c.Flags().StringVar(&file, "file", "", `an export to verify; "-" is standard input`)
	c.Flags().StringVar(&keys, "public-key", "", "PEM file with the public keys to trust, for --file")
	c.Flags().StringArrayVar(&against, "against", nil, "a checkpoint that was kept, as NUMBER:HASH; may be repeated")
	c.MarkFlagsMutuallyExclusive("config", "file")
	c.MarkFlagsRequiredTogether("file", "public-key")
	return c
}

func parseAnchors(texts []string) ([]audit.Anchor, error) {
	var anchors []audit.Anchor
	for _, s := range texts {
		a, err := audit.ParseAnchor(s)
		if err != nil {
			return nil, fmt.Errorf("--against: %w", err)
		}
		anchors = append(anchors, a)
	}
	return anchors, nil
}

func verifyFile(c *cobra.Command, file, keys string, anchors []audit.Anchor) error {
	b, err := os.ReadFile(keys)
	if err != nil {
		return err
	}
	trust, err := audit.ParseTrust(b)
	if err != nil {
		return fmt.Errorf("%s: %w", keys, err)
	}
	in := c.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	p := progress{out: c.ErrOrStderr(), next: time.Now().Add(progressEvery)}
	r, err := audit.VerifyExport(in, &audit.Verifier{Trust: trust, Anchors: anchors}, p.show)
	return report(c, r, err)
}

// progressEvery is how often a long run says how far it is.
const progressEvery = 5 * time.Second

type progress struct {
	out  io.Writer
	next time.Time
}

func (p *progress) show(r audit.Report) {
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(progressEvery)
		fmt.Fprintf(p.out, "verified %d rows, to checkpoint %d\n", r.Rows, r.Last.Number)
	}
}

// verifying is a Verifier that says how far it is.
type verifying struct {
	audit.Verifier
	progress progress
}

// End implements store.AuditVisitor.
func (v *verifying) End() error {
	err := v.Verifier.End()
	v.progress.show(v.Report())
	return err
}

func verifyDatabase(c *cobra.Command, a *server.Audit, anchors []audit.Anchor) error {
	v := &verifying{audit.Verifier{Trust: a.Keys.Trust(), Keys: a.Keys, Cell: a.Cell.ID, Anchors: anchors}, progress{c.ErrOrStderr(), time.Now().Add(progressEvery)}}
	if err := a.Store.VisitAudit(c.Context(), 0, v); err != nil {
		return report(c, v.Report(), err)
	}
	r, err := v.Finish()
	return report(c, r, err)
}

// report prints what was looked at, and that it is sound unless it is not.
func report(c *cobra.Command, r audit.Report, err error) error {
	out := c.OutOrStdout()
	var fault *audit.Fault
	if err != nil && !errors.As(err, &fault) {
		return err
	}
	fmt.Fprintf(out, "%d rows in %d chains, %d checkpoints\n", r.Rows, r.Chains, r.Checkpoints)
	if r.PrunedTo > 0 {
		fmt.Fprintf(out, "pruned up to checkpoint %d; verified from there\n", r.PrunedTo)
	} else if r.First > 1 {
		fmt.Fprintf(out, "begins with checkpoint %d; what was before was not looked at\n", r.First)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(out, "%d rows are in their places, but the export does not show them\n", r.Skipped)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	if err != nil {
		return fmt.Errorf("THE AUDIT LOG WAS CHANGED: %w", err)
	}
	if r.Unsigned > 0 {
		fmt.Fprintf(out, "%d rows, since %s, come after the last checkpoint: were the last of them gone, nothing would show it yet\n", r.Unsigned, r.Since.Format(time.RFC3339))
	}
	if r.Last.Number > 0 {
		fmt.Fprintf(out, "last checkpoint of %s, to keep for --against: %s\n", r.LastAt.Format(time.RFC3339), r.Last)
	}
	fmt.Fprintln(out, "the audit log is sound")
	return nil
}

func auditExport() *cobra.Command {
	var after uint64
	var since, until, account, pseudonym string
	var kinds []string
	var onlyMatching, sign bool
	c := withAudit("export", "Write the audit log to standard output, as JSON lines", func(c *cobra.Command, a *server.Audit) error {
		f, err := parseFilter(since, until, kinds, pseudonym)
		if err != nil {
			return err
		}
		if account != "" {
			if f.Account, err = pseudonymOf(c.Context(), a, account); err != nil {
				return err
			}
		}
		if after == 0 && !f.Since.IsZero() {
			if after, err = a.Store.AuditCheckpointBefore(c.Context(), f.Since); err != nil {
				return err
			}
		}
		if err := record(c.Context(), a, sign, audit.AuditExported(audit.ByOperator(), after)); err != nil {
			return err
		}
		return export(c, a, after, f, onlyMatching)
	})
	c.Long = `Write what checkpoints have signed to standard output, one JSON object a line; docs/audit.md describes them. "cell audit verify
--file" verifies it anywhere. With a filter, what does not match keeps its place as a line without content, so that the rest
can still be verified. An export goes on where another ended with --after and the number of its last checkpoint, which is
printed to standard error. That somebody exports is recorded.`
	c.Flags().Uint64Var(&after, "after", 0, "begin after this checkpoint")
	c.Flags().StringVar(&since, "since", "", "only events at or after this time (RFC 3339)")
	c.Flags().StringVar(&until, "until", "", "only events before this time (RFC 3339)")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "only events of these kinds, such as auth.login,device.added")
	c.Flags().StringVar(&account, "account", "", "only events about or by the account with this id")
	c.Flags().StringVar(&pseudonym, "pseudonym", "", "only events about or by the account, or by the admin, with this pseudonym")
	c.Flags().BoolVar(&onlyMatching, "only-matching", false, "leave out what does not match; such an export cannot be verified")
	c.Flags().BoolVar(&sign, "checkpoint", false, "sign a checkpoint first, so that the export goes up to now")
	c.MarkFlagsMutuallyExclusive("account", "pseudonym")
	return c
}

func parseFilter(since, until string, kinds []string, pseudonym string) (f audit.Filter, err error) {
	for text, to := range map[string]*time.Time{since: &f.Since, until: &f.Until} {
		if text == "" {
			continue
		}
		if *to, err = time.Parse(time.RFC3339, text); err != nil {
			return f, fmt.Errorf("%q is not a time such as 2026-03-04T05:06:07Z", text)
		}
	}
	for _, name := range kinds {
		k, err := audit.ParseKind(name)
		if err != nil {
			return f, err
		}
		f.Kinds = append(f.Kinds, k)
	}
	if pseudonym != "" {
		f.Account, err = audit.ParseRef(pseudonym)
	}
	return f, err
}

func pseudonymOf(ctx context.Context, a *server.Audit, account string) (audit.Ref, error) {
	id, err := ids.Parse(account)
	if err != nil {
		return audit.Ref{}, err
	}
	ref, err := a.Store.AuditRef(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return ref, fmt.Errorf("no event names account %s: there is none such, or its pseudonym was erased with it", id)
	}
	return ref, err
}

// record stores what an admin does here, and signs it if asked to.
func record(ctx context.Context, a *server.Audit, sign bool, e audit.Event) error {
	if err := a.Store.WriteAudit(ctx, e); err != nil {
		return fmt.Errorf("this has to be recorded first: %w", err)
	}
	if err := a.Store.EndAuditChains(ctx); err != nil || !sign {
		return err
	}
	p, err := a.Store.CheckpointAudit(ctx, time.Now())
	if err == nil && p != nil && len(p.Faults) > 0 {
		err = p.Faults[0]
	}
	return err
}

func export(c *cobra.Command, a *server.Audit, after uint64, f audit.Filter, onlyMatching bool) error {
	out := bufio.NewWriter(c.OutOrStdout())
	x, err := audit.NewExporter(out, a.Cell.ID, after, onlyMatching)
	if err != nil {
		return err
	}
	x.Filter = f
	err = errors.Join(a.Store.VisitAudit(c.Context(), after, x), out.Flush())
	fmt.Fprintf(c.ErrOrStderr(), "%d events, %d passed over; the export goes on with --after %d\n", x.Events, x.Skipped, x.Last)
	return err
}

func auditPrune() *cobra.Command {
	var keep time.Duration
	c := withAudit("prune", "Remove what is older than the audit log's retention, as the database role that owns it", func(c *cobra.Command, a *server.Audit) error {
		kept, err := retention(c, a, keep)
		if err != nil {
			return err
		}
		return prune(c, a, kept)
	})
	c.Long = `Remove what is older than the policy's retention.audit, or --keep. The log is verified first, and left alone when it does not
verify; what is left can be verified from where the pruning ended. Run it daily, with the connection string of the database
role that owns the tables, in QPQ_DATABASE_URI where it is not the server's.`
	c.Flags().DurationVar(&keep, "keep", 0, "how long events are kept, in the place of what the policy says")
	return c
}

// retention is --keep, or what the policy says. Less than leastKept is nobody's to choose.
func retention(c *cobra.Command, a *server.Audit, keep time.Duration) (time.Duration, error) {
	switch {
	case c.Flags().Changed("keep") && keep < leastKept:
		return 0, fmt.Errorf("--keep: at least %s", leastKept)
	case c.Flags().Changed("keep"):
		return keep, nil
	}
	kept, err := a.Retention()
	if err != nil {
		return 0, fmt.Errorf("%w; correct the policy file, or say --keep", err)
	}
	if kept < leastKept {
		fmt.Fprintf(c.ErrOrStderr(), "the policy's retention.audit is %s; %s are kept, for what servers still write to\n", kept, leastKept)
		kept = leastKept
	}
	return kept, nil
}

func prune(c *cobra.Command, a *server.Audit, kept time.Duration) error {
	now := time.Now()
	upTo, removed, err := a.Store.PruneAudit(c.Context(), now.Add(-kept), now)
	var fault *audit.Fault
	switch {
	case errors.As(err, &fault):
		return fmt.Errorf("nothing was removed, for the log does not verify, and is evidence: %w", err)
	case errors.Is(err, store.ErrNotOwner):
		return fmt.Errorf("%w; run this with the owner's connection string in QPQ_DATABASE_URI", err)
	case err != nil:
		return err
	case removed == 0:
		fmt.Fprintf(c.OutOrStdout(), "there is nothing to remove that is older than %s\n", kept)
		return nil
	}
	fmt.Fprintf(c.OutOrStdout(), "removed %d rows older than %s; the log can be verified from checkpoint %d on\n", removed, kept, upTo)
	return record(c.Context(), a, true, audit.AuditPruned(audit.ByOperator(), upTo))
}

func auditKey() *cobra.Command {
	return withAudit("key", "Print the public keys that verify exports, as PEM", func(c *cobra.Command, a *server.Audit) error {
		b, err := a.Keys.Trust().PEM()
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(b)
		return err
	})
}

func auditSubject() *cobra.Command {
	var account, pseudonym, admin string
	c := withAudit("subject", "Say which account has a pseudonym, or which pseudonym an account or admin has", func(c *cobra.Command, a *server.Audit) error {
		ctx, out := c.Context(), c.OutOrStdout()
		if admin != "" {
			fmt.Fprintln(out, a.Keys.Admin(admin))
			return nil
		}
		id, ref, err := resolve(ctx, a, account, pseudonym)
		if err != nil {
			return err
		}
		if err := record(ctx, a, false, audit.SubjectResolved(audit.ByOperator(), id)); err != nil {
			return err
		}
		if account != "" {
			fmt.Fprintln(out, ref)
			return nil
		}
		who, err := a.Store.AccountByID(ctx, id)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, id, strings.ToValidUTF8(who.Name, "?"))
		return nil
	})
	c.Flags().StringVar(&account, "account", "", "an account's id")
	c.Flags().StringVar(&pseudonym, "pseudonym", "", "a pseudonym of an account")
	c.Flags().StringVar(&admin, "admin", "", "an admin's name, as the credential has it")
	c.MarkFlagsMutuallyExclusive("account", "pseudonym", "admin")
	c.MarkFlagsOneRequired("account", "pseudonym", "admin")
	return c
}

func resolve(ctx context.Context, a *server.Audit, account, pseudonym string) (id ids.ID, ref audit.Ref, err error) {
	if account != "" {
		if id, err = ids.Parse(account); err == nil {
			ref, err = pseudonymOf(ctx, a, account)
		}
		return id, ref, err
	}
	if ref, err = audit.ParseRef(pseudonym); err != nil {
		return id, ref, err
	}
	id, err = a.Store.AuditAccount(ctx, ref)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("no account has the pseudonym %s: it is another's, or was erased with its account", ref)
	}
	return id, ref, err
}
