package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"quicproquo.dev/cell/server"
)

func sealingKeys() *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "Look after the keys of the cell's keys file"}
	c.AddCommand(keysStatus())
	return c
}

func keysStatus() *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{Use: "status", Short: "Count what is sealed under which sealing key: a key with nothing under it may be dropped from the file", Args: cobra.NoArgs,
		Long: `Count how many values of the database are sealed under which sealing key. To rotate, put a new key in front of the others
in the keys file and roll it out, in any order: it seals once every server has it, and servers seal what is under the others anew in the background.
A key that is not the first and has no values may be dropped; servers refuse to start without one that is still needed.`,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := server.LoadConfig(file)
			if err != nil {
				return err
			}
			list, err := server.SealingKeys(c.Context(), config)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tVALUES\t")
			for _, k := range list {
				fmt.Fprintf(w, "%d\t%d\t%s\n", k.ID, k.Values, keyNote(k))
			}
			return w.Flush()
		}}
	c.Flags().StringVar(&file, "config", "", "configuration file (required)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.MarkFlagRequired("config")
	return c
}

func keyNote(k server.SealingKeyStatus) string {
	switch {
	case k.ID == 0 && !k.InFile:
		return "damaged: run cell scrub"
	case !k.InFile:
		return "MISSING from the keys file: these values cannot be read; restore the key"
	case k.First:
		return "first: seals"
	case k.Values == 0:
		return "may be dropped"
	}
	return "being sealed anew"
}
