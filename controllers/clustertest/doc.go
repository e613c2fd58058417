// Package clustertest holds the tests of the reconciler against a real API
// server. Nobody runs pods there: tests play kubelet and the cluster's own
// controllers, one step at a time.
//
// kube-apiserver and etcd come from KUBEBUILDER_ASSETS or, without that, from
// hack/cluster/envtest-assets.sh, which builds them once (ten minutes) and
// says so. Without them the tests fail.
package clustertest
