//go:build e2e

package e2ekind

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	qpqFile    = flag.String("qpq", "", "the qpq program")
	adminFile  = flag.String("kubectl-qpq", "", "the kubectl-qpq program")
	sampleFile = flag.String("sample", "", "the manifest of the sample cell")
	reportDir  = flag.String("report", "", "where to keep what is known of a failure")
)

// full is whether there is time for more of the same.
var full = os.Getenv("E2E_FULL") != ""

// TestCell is the life of a cell, as two people and an admin see it. Its parts
// build on each other.
func TestCell(t *testing.T) {
	if *qpqFile == "" || *adminFile == "" || *sampleFile == "" || *reportDir == "" {
		t.Fatal("run me with: make e2e")
	}
	t.Cleanup(func() { dumpIfFailed(t) })
	c := cell{t, "demo"}
	// A cell of an earlier run knows the people of that run.
	dir, run := t.TempDir(), strconv.FormatInt(time.Now().Unix(), 36)
	w := &world{cell: c, alice: makePerson(t, "alice-"+run, dir), bob: makePerson(t, "bob-"+run, dir)}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"applied", applied},
		{"restricted", restricted},
		{"two people talk", twoPeopleTalk},
		{"an admin looks after them", anAdmin},
		{"an admin checks what is stored", storedIsChecked},
		{"pods die", podsDie},
		{"the operator heals", operatorHeals},
		{"three servers", threeServers},
		{"deleted and applied again", deletedAndAppliedAgain},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, w.on(t)) }) {
			t.FailNow()
		}
	}
}

// world is what the parts share.
type world struct {
	cell       cell
	alice, bob person
	status     status
}

// on makes failures those of t.
func (w *world) on(t *testing.T) *world {
	w.cell, w.alice, w.bob = w.cell.on(t), w.alice.on(t), w.bob.on(t)
	return w
}

// reach makes both people use the cell's address of now.
func (w *world) reach(s status) {
	w.status = s
	w.alice.endpoint, w.bob.endpoint = s.Endpoint, s.Endpoint
}

func applied(t *testing.T, w *world) {
	w.cell.apply()
	s := w.cell.waitReady(5 * time.Minute)
	if s.Endpoint == "" || len(s.Pin) != 64 || s.ReadyReplicas != 1 {
		t.Fatalf("it is ready with status %+v", s)
	}
	w.reach(s)
	objects := kube(t, "get", "deployments,statefulsets,jobs,services,poddisruptionbudgets,persistentvolumeclaims,configmaps,secrets,serviceaccounts,pods", "-l", w.cell.selector(), "-o", "name")
	say(t, "it made:\n%s", objects)
	for _, kind := range []string{"deployment", "statefulset", "service", "poddisruptionbudget", "persistentvolumeclaim", "configmap", "secret", "serviceaccount", "pod"} {
		if !strings.Contains(objects, kind) {
			t.Errorf("it made no %s", kind)
		}
	}
}

// restricted: the API server lets no pod into the namespace that does not
// satisfy the strictest Pod Security Standard, so that the cell's pods do.
func restricted(t *testing.T, w *world) {
	if level := kube(t, "get", "namespace", namespace, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); level != "restricted" {
		t.Fatalf("the namespace enforces %q", level)
	}
	if _, err := kubectl(t.Context(), "run", "bad", "--image=none", "--dry-run=server"); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("an ordinary pod: %v", err)
	}
	pods := names(t, "pods", w.cell.selector())
	say(t, "%d pods run under the restricted standard", len(pods))
	for _, pod := range pods {
		if out := kube(t, "get", "pod", pod, "-o", "jsonpath={.spec.containers[*].securityContext.readOnlyRootFilesystem} {.spec.automountServiceAccountToken}"); out != "true false" {
			t.Errorf("%s: read-only root, token: %s", pod, out)
		}
	}
}

func twoPeopleTalk(_ *testing.T, w *world) {
	w.alice.enter("signup", w.status)
	w.bob.enter("signup", w.status)
	w.alice.tell(w.bob, "Hello Bob, meet me at the old mill at nine")
	w.bob.tell(w.alice, "I shall bring the map")
}

// storedIsChecked: what docs/storage.md has an admin type works in the pods, which
// have no shell.
func storedIsChecked(t *testing.T, w *world) {
	for _, check := range []struct{ command, want string }{{"scrub", ": 0 damaged"}, {"keys status", "first: seals"}} {
		args := append([]string{"exec", "deployment/" + w.cell.name, "--", "/cell"}, strings.Fields(check.command)...)
		out := kube(t, append(args, "--config", "/etc/quicproquo/config/cell.yaml")...)
		say(t, "cell %s:\n%s", check.command, out)
		if !strings.Contains(out, check.want) {
			t.Errorf("cell %s does not say %q", check.command, check.want)
		}
	}
}

// podsDie sends numbered messages while servers and operator are taken away. A
// pod comes back on its node: the address that the two know is that node's.
func podsDie(t *testing.T, w *world) {
	holdNode(t, w.cell.pods())
	n := 60
	if full {
		n = 300
	}
	f := w.bob.follow()
	w.alice.send(w.bob, "0")
	f.await(1, time.Minute)
	st := &stream{t: t, from: w.alice, to: w.bob, events: map[int]event{
		n / 6:     {"delete the server's pod", func() { w.cell.deletePod(w.cell.pods()) }},
		n / 2:     {"kill the operator", func() { w.cell.deletePod(operatorPods, "--grace-period=0", "--force") }},
		n * 2 / 3: {"kill the server", func() { w.cell.deletePod(w.cell.pods(), "--grace-period=0", "--force") }},
	}}
	st.run(n)
	st.judge(f.await(n+1, 2*time.Minute)[1:])
	f.stop()
	if late := w.bob.read(); len(late) != 0 {
		t.Errorf("after all was read there is more: %+v", late)
	}
	w.bob.tell(w.alice, "All of them came")
}

// holdNode has no other nodes take pods than that of the one pod that the
// selector selects, until the test ends.
func holdNode(t *testing.T, selector string) {
	t.Helper()
	of := kube(t, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].spec.nodeName}")
	for _, node := range strings.Fields(kube(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")) {
		if node == of {
			continue
		}
		kube(t, "cordon", node)
		t.Cleanup(func() {
			if _, err := kubectl(context.Background(), "uncordon", node); err != nil {
				t.Error(err)
			}
		})
	}
}

// deletePod deletes the one running pod that the selector selects, without
// waiting for its end.
func (c cell) deletePod(selector string, flags ...string) {
	c.t.Helper()
	pods := runningPods(c.t, selector)
	if len(pods) != 1 {
		c.t.Fatalf("pods with %s: %q, want one", selector, pods)
	}
	kube(c.t, append([]string{"delete", "pod", pods[0], "--wait=false"}, flags...)...)
}

// operatorHeals: the operator that was killed is back and watches.
func operatorHeals(t *testing.T, w *world) {
	kube(t, "rollout", "status", "deployment/quicproquo-operator", "--timeout=120s")
	from := time.Now()
	uid := func() string {
		out, err := kubectl(t.Context(), "get", "poddisruptionbudget", w.cell.name, "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			return ""
		}
		return out
	}
	before := uid()
	kube(t, "delete", "poddisruptionbudget", w.cell.name)
	waitFor(t, "the deleted PodDisruptionBudget is back", 2*time.Minute, func() bool { now := uid(); return now != "" && now != before })
	say(t, "a deleted PodDisruptionBudget is back after %.1f s", time.Since(from).Seconds())
	w.cell.waitReady(time.Minute)
}

func threeServers(t *testing.T, w *world) {
	kube(t, "scale", "messagingcell/"+w.cell.name, "--replicas=3")
	w.cell.waitReplicas(3, 3*time.Minute)
	w.cell.waitReady(time.Minute)
	const n = 12
	f := w.bob.follow()
	st := &stream{t: t, from: w.alice, to: w.bob}
	st.run(n)
	st.judge(f.await(n, 2*time.Minute))
	f.stop()
	w.bob.tell(w.alice, "Three servers, one conversation")
}

// deletedAndAppliedAgain: what a cell knows outlives it.
func deletedAndAppliedAgain(t *testing.T, w *world) {
	unread := w.alice.send(w.bob, "Written before the cell was deleted")
	kept := func() string {
		return kube(t, "get", "persistentvolumeclaims,secrets", "-l", w.cell.selector(), "-o", `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{"\n"}{end}`)
	}
	before := kept()
	from := time.Now()
	kube(t, "delete", "messagingcell", w.cell.name, "--timeout=120s")
	waitFor(t, "the cell's pods are gone", 3*time.Minute, func() bool { return len(names(t, "pods", w.cell.selector())) == 0 })
	say(t, "deleted after %.1f s; kept:\n%s", time.Since(from).Seconds(), before)
	if after := kept(); after != before || !strings.Contains(before, "PersistentVolumeClaim") || !strings.Contains(before, "Secret") {
		t.Errorf("kept:\n%s\nwant:\n%s", after, before)
	}
	if left := names(t, "deployments,statefulsets,services", w.cell.selector()); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	w.cell.apply()
	s := w.cell.waitReady(5 * time.Minute)
	if s.Pin != w.status.Pin {
		t.Errorf("the pin was %s and is %s", w.status.Pin, s.Pin)
	}
	w.reach(s)
	if got := w.bob.read(); len(got) != 1 || got[0].Text != unread.text || got[0].Seq != unread.Seq {
		t.Fatalf("bob reads %+v, want %+v", got, unread)
	}
	reply := w.bob.tell(w.alice, "I found it in the new one")
	if reply.Channel != unread.Channel || reply.Seq != unread.Seq+1 {
		t.Errorf("after %+v comes %+v", unread, reply)
	}
	again := makePerson(t, w.alice.name, t.TempDir())
	again.enter("login", s)
}

// event is something that happens while messages are sent.
type event struct {
	what string
	do   func()
}

// stream is a sequence of messages with the numbers from 1, sent one by one.
type stream struct {
	t        *testing.T
	from, to person
	events   map[int]event // by the number of the message before which they happen

	marks  []mark
	times  []time.Duration // to send each message
	queued int
}

// mark is an event that happened.
type mark struct {
	what string
	at   time.Time
}

func (s *stream) run(n int) {
	s.t.Helper()
	for i := 1; i <= n; i++ {
		if e, ok := s.events[i]; ok {
			say(s.t, "before message %d: %s", i, e.what)
			s.marks = append(s.marks, mark{e.what, time.Now()})
			e.do()
		}
		from := time.Now()
		if sent := s.from.send(s.to, fmt.Sprint(i)); sent.queued {
			s.queued++
			say(s.t, "message %d waits in the outbox", i)
		}
		s.times = append(s.times, time.Since(from))
	}
	if s.queued > 0 {
		s.from.read() // sends what waits
	}
	slices.Sort(s.times)
	say(s.t, "sent %d messages, half within %.2f s, the slowest in %.2f s; %d waited in the outbox", n, s.times[n/2].Seconds(), s.times[n-1].Seconds(), s.queued)
}

// judge checks that every message came once and in order, and tells how long
// nothing came after each event.
func (s *stream) judge(got []arrival) {
	s.t.Helper()
	seen := map[string]int{}
	var order []string
	for i, a := range got {
		seen[a.Text]++
		order = append(order, a.Text)
		if i > 0 && a.Seq != got[i-1].Seq+1 {
			s.t.Errorf("after sequence %d comes %d", got[i-1].Seq, a.Seq)
		}
	}
	for text, times := range seen {
		if times > 1 {
			s.t.Errorf("message %s came %d times", text, times)
		}
	}
	want := make([]string, len(got))
	for i := range want {
		want[i] = fmt.Sprint(i + 1)
	}
	if !slices.Equal(order, want) {
		s.t.Errorf("messages came as %q", order)
	}
	for i, m := range s.marks {
		until := time.Now()
		if i+1 < len(s.marks) {
			until = s.marks[i+1].at
		}
		say(s.t, "%s: the longest silence afterwards was %.1f s", m.what, longestSilence(got, m.at, until).Seconds())
	}
}

// longestSilence is the longest time between from and until without an arrival,
// before the last one.
func longestSilence(got []arrival, from, until time.Time) (longest time.Duration) {
	last := from
	for _, a := range got {
		if a.at.Before(from) || a.at.After(until) {
			continue
		}
		longest = max(longest, a.at.Sub(last))
		last = a.at
	}
	return longest
}

// sentMessage is a message that qpq has taken.
type sentMessage struct {
	message
	text string
	// queued means that it waits in the outbox, to be sent by the next run.
	queued bool
}

// send sends a message, as somebody does who trusts what qpq says: what is queued
// is not sent anew, what is refused for now is.
func (p person) send(to person, text string) (sent sentMessage) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	sent.text = text
	for {
		out, f, ok := p.try("dm", to.name, text)
		switch {
		case ok:
			decode(p.t, out, &sent.message)
			return sent
		case f.Error.Queued != "":
			sent.queued = true
			return sent
		case !f.Error.Retryable || ctx.Err() != nil:
			p.t.Fatalf("%s: %q: %+v", p.name, text, f.Error)
		}
		say(p.t, "%s: %q has to be sent anew: %s", p.name, text, f.Error.Message)
	}
}
