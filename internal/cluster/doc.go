// Package cluster is the Relying Party in a Kubernetes cluster: the trust-controller. It makes the cluster obey the verdicts of AIAS.
//
// Data flow left to right, each room a package:
//
//	AIAS ──feed──▶ verdict (about this very node object?) ──▶ class (which classes does it meet?) ──▶ board ──▶ breaker (too many to be true?)
//	                                                                        │
//	                     node (labels, taints, NodeTrust, condition) ◀──────┼──────▶ evict (pods of classes that the node does not meet)
//	                                                                        └──────▶ join (certificates of kubelets), carry (policy and tags to AIAS)
//
// verdict, class and breaker are pure; board is what is known at this moment; the others talk to the API server. Only the leader among the replicas
// acts; all of them follow the stream. Admission (package admission) and this package share nothing but the names in api/v1alpha1.
package cluster
