package clustertest

import (
	"context"
	"encoding/pem"
	"errors"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crypto/sha256"
	"encoding/hex"
)

// fakeServers answer as delivery servers would, by the pods' addresses. A
// server has loaded what is published unless it was told to keep what it had.
type fakeServers struct {
	w     *world
	mu    sync.Mutex
	known map[string]*fakeServer
}

type fakeServer struct {
	cell   string
	silent bool
	frozen bool
	policy string
	chain  [][]byte
	unsafe string
}

func (f *fakeServers) add(ip, cell string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[ip] = &fakeServer{cell: cell}
}

// freeze makes all servers keep what they have loaded; thaw ends that.
func (f *fakeServers) freeze() {
	for ip := range f.known {
		policy, _ := f.Policy(context.Background(), ip) //nolint:errcheck // What cannot be loaded is not kept.
		chain, _ := f.Chain(context.Background(), ip, "")
		f.mu.Lock()
		f.known[ip].policy, f.known[ip].chain, f.known[ip].frozen = policy, chain, true
		f.mu.Unlock()
	}
}

func (f *fakeServers) each(change func(*fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, server := range f.known {
		change(server)
	}
}

func (f *fakeServers) get(ip string) (fakeServer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	server := f.known[ip]
	if server == nil || server.silent {
		return fakeServer{}, errors.New("no route to host")
	}
	return *server, nil
}

// Policy implements controllers.ServerProbe.
func (f *fakeServers) Policy(ctx context.Context, ip string) (string, error) {
	server, err := f.get(ip)
	if err != nil || server.frozen {
		return server.policy, err
	}
	var cm corev1.ConfigMap
	if err := f.w.Get(ctx, f.w.key(server.cell+"-policy"), &cm); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(cm.Data["policy.yaml"]))
	return hex.EncodeToString(sum[:]), nil
}

// Durability implements controllers.ServerProbe.
func (f *fakeServers) Durability(_ context.Context, ip string) (string, error) {
	server, err := f.get(ip)
	return server.unsafe, err
}

// Chain implements controllers.ServerProbe.
func (f *fakeServers) Chain(ctx context.Context, ip, _ string) ([][]byte, error) {
	server, err := f.get(ip)
	if err != nil || server.frozen {
		return server.chain, err
	}
	var pod corev1.PodList
	if err := f.w.List(ctx, &pod, client.InNamespace(f.w.ns)); err != nil {
		return nil, err
	}
	name := ""
	for _, p := range pod.Items {
		for _, v := range p.Spec.Volumes {
			if p.Status.PodIP == ip && v.Name == "tls" {
				name = v.Secret.SecretName
			}
		}
	}
	var secret corev1.Secret
	if err := f.w.Get(ctx, f.w.key(name), &secret); err != nil {
		return nil, err
	}
	var chain [][]byte
	for block, rest := pem.Decode(secret.Data["tls.crt"]); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return chain, nil
}

func (w *world) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: w.ns, Name: strings.TrimSpace(name)}
}
