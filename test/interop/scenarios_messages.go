package interop

import (
	"errors"
	"fmt"
)

// lossy is an order of arrival in which two of twelve messages are lost and the
// others come up to seven places away from where they were sent.
var lossy = []int{3, 0, 1, 7, 2, 9, 4, 11, 6, 10}

func reorderedMessages(w *world) {
	mine, others := w.found()
	for _, from := range mine {
		texts, messages := make([]string, 12), make([][]byte, 12)
		for i := range messages {
			texts[i] = fmt.Sprintf("%s says %d", from.name, i)
			messages[i] = w.send(from, texts[i], 0)
		}
		for _, to := range others {
			for _, i := range lossy {
				w.receive(to, from, messages[i], texts[i])
			}
		}
		// The others answer in order, so that both ratchets of a group are in use.
		answer := w.send(others[0], "I see", 0)
		w.receive(from, others[0], answer, "I see")
	}
}

// lateMessages arrive after Commits that end their epoch.
func lateMessages(w *world) {
	mine, others := w.found()
	var messages [][]byte
	for i := range 3 {
		messages = append(messages, w.send(mine[1], fmt.Sprint("late ", i), 0))
		w.commit(mine[0], Commit{})
	}
	for i, m := range messages {
		for _, to := range others {
			w.receive(to, mine[1], m, fmt.Sprint("late ", i))
		}
	}
}

// paddedMessages of different lengths must be of one length on the wire, and arrive.
func paddedMessages(w *world) {
	mine, others := w.found()
	const padded = 512
	var length int
	for i, text := range []string{"", "short", string(make([]byte, 300))} {
		m := w.send(mine[0], text, padded)
		if i == 0 {
			length = len(m)
		}
		if w.err == nil && (len(m) != length || len(m) < padded) {
			w.fail(mine[0], "pads", errors.New("messages of different length"))
		}
		for _, to := range others {
			w.receive(to, mine[0], m, text)
		}
	}
}
