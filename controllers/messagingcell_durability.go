package controllers

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
)

// durabilityPause is between two questions. Servers themselves look once a
// minute.
const durabilityPause = 2 * time.Minute

// durability is what a server said of the database's settings.
type durability struct {
	asked    time.Time
	problems string // Empty: what is acknowledged survives a crash.
}

// observeDurability asks a server whether the database keeps what it has
// acknowledged. All have the same database: the first answer does. Without any the
// condition stays as it was.
func observeDurability(ctx context.Context, s *scope) (ctrl.Result, error) {
	known := s.memory.recall(s.key()).durability
	if left := durabilityPause - s.now.Sub(known.asked); left > 0 {
		s.tellDurability(known.problems)
		return again(left), nil
	}
	for i := range s.pods {
		if !podReady(&s.pods[i]) {
			continue
		}
		problems, err := s.askDurability(ctx, s.pods[i].Status.PodIP)
		if err != nil {
			continue // Silent, or of a release that does not know the question.
		}
		s.memory.change(s.key(), func(r *remembered) { r.durability = durability{s.now, problems} })
		s.tellDurability(problems)
		return again(durabilityPause), nil
	}
	return again(durabilityPause), nil
}

func (s *scope) askDurability(ctx context.Context, ip string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	return s.Servers.Durability(ctx, ip)
}

func (s *scope) tellDurability(problems string) {
	if problems == "" {
		s.setOrRemove(v1alpha1.ConditionDurabilityReduced, nil)
		return
	}
	s.setOrRemove(v1alpha1.ConditionDurabilityReduced, &metav1.Condition{Reason: v1alpha1.ReasonDatabaseSettings, Message: shorten(problems)})
}
