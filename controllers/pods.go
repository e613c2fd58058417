package controllers

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
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

// startPatience is how long a pod may take to get its containers started:
// images are pulled, volumes made, nodes added.
const startPatience = 5 * time.Minute

// stuck reports whether a pod with some trouble has not started for so long
// that somebody must see to it, and if not, when to look again.
func stuck(pods []corev1.Pod, now time.Time) (yes bool, look ctrl.Result) {
	for i := range pods {
		if pods[i].Status.Phase != corev1.PodPending || podTrouble(&pods[i]) == "" {
			continue
		}
		left := startPatience - now.Sub(pods[i].CreationTimestamp.Time)
		if left <= 0 {
			return true, ctrl.Result{}
		}
		look = lowest(look, again(left+time.Second))
	}
	return false, look
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
