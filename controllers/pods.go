package controllers

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// trouble says what keeps pods from being ready, as the end of a sentence, and
// nothing if it is only time.
func trouble(pods []corev1.Pod) string {
	for i := range pods {
		if what := podTrouble(&pods[i]); what != "" {
			return ": pod " + pods[i].Name + " " + what
		}
	}
	return ""
}

func podTrouble(pod *corev1.Pod) string {
	if podReady(pod) || pod.DeletionTimestamp != nil {
		return ""
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "finds no node: " + clip(c.Message)
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if what := containerTrouble(&c); what != "" {
			return what
		}
	}
	return ""
}

// quiet are the reasons to wait that say only that a container starts.
var quiet = []string{"", "ContainerCreating", "PodInitializing"}

func containerTrouble(c *corev1.ContainerStatus) string {
	ended := c.State.Terminated
	if ended == nil {
		ended = c.LastTerminationState.Terminated
	}
	if ended != nil && ended.ExitCode != 0 {
		return "stopped: " + clip(lastLine(ended.Message, ended.Reason))
	}
	if w := c.State.Waiting; w != nil && !slices.Contains(quiet, w.Reason) {
		return "waits: " + w.Reason + ": " + clip(w.Message)
	}
	return ""
}

// lastLine is what a program said last, which is why it ended.
func lastLine(text, otherwise string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if line := strings.TrimSpace(lines[len(lines)-1]); line != "" {
		return line
	}
	return otherwise
}

func clip(text string) string {
	const most = 400
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
