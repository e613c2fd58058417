// mkimage packs files into a container image: a docker-archive, which docker
// load, kind load image-archive and ctr images import take. It needs neither
// registry nor daemon, and the same files give the same bytes.
//
//	mkimage -o OUT.tar -t NAME:TAG [-t ...] [-entrypoint WORD]... [-add FILE=PATH]... [DIR]
//
// The image has what is in DIR, and each FILE at its PATH.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

// words is a flag that may be given more than once.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var tags, entrypoint, env, adds words
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	out := flags.String("o", "", "`file` to write")
	user := flags.String("user", "", "`uid[:gid]` of the process")
	flags.Var(&tags, "t", "full `name:tag` of the image; repeatable")
	flags.Var(&entrypoint, "entrypoint", "one `word` of the command; repeatable")
	flags.Var(&env, "env", "`NAME=VALUE` in the environment; repeatable")
	flags.Var(&adds, "add", "`file=path`: a file, and where it goes in the image; repeatable")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || len(tags) == 0 || flags.NArg() > 1 || flags.NArg()+len(adds) == 0 {
		return errors.New("usage: mkimage -o OUT.tar -t NAME:TAG [FLAGS] [DIR]; -h lists the flags")
	}
	entries, err := collect(flags.Arg(0), adds)
	if err != nil {
		return err
	}
	if len(env) == 0 {
		env = words{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return writeArchive(*out, tags, processConfig{Entrypoint: entrypoint, Env: env, User: *user}, entries)
}
