package v1alpha1

// ClassLabel names the TrustClass of a pod. On a namespace it is the class that every pod of the namespace has.
const ClassLabel = "touchstone.dev/trust-class"

// Node labels. The prefix is one that the API server's NodeRestriction keeps kubelets from writing; an admission policy of ours keeps
// everyone else from it.
const (
	NodeLabelPrefix = "node-restriction.kubernetes.io/touchstone-"
	// TrustedLabel is "true" or "false".
	TrustedLabel = NodeLabelPrefix + "trusted"
	// LevelLabelPrefix and the number of a level carry its status: pass, warn, fail or unknown.
	LevelLabelPrefix = NodeLabelPrefix + "level-"
	// ClassNodeLabelPrefix and the name of a TrustClass are "true" on the nodes that meet the class now. Pods of the class select it.
	ClassNodeLabelPrefix = NodeLabelPrefix + "class-"
	// TagLabelPrefix and the name of an asset tag carry its value. Only proven tags become labels.
	TagLabelPrefix = NodeLabelPrefix + "tag-"
)

// UntrustedTaint is on every node that is not trusted now, with effect NoSchedule; on one that has fallen, unless TrustEnforcement says
// otherwise, with NoExecute as well. With NoExecute its value names the levels that do not hold, such as "5" or "4-5", so that pods of a class that
// leaves those out can tolerate it and nothing else; it is empty when no result counts, and with NoSchedule.
const UntrustedTaint = "touchstone.dev/untrusted"

// TrustedCondition is the type of the condition of a Node.
const TrustedCondition = "touchstone.dev/Trusted"

// IsolatedCondition is the type of the condition of a Pod of a class that NetworkPolicies isolate no longer, or isolate again.
const IsolatedCondition = "touchstone.dev/Isolated"

// EnforcementName is the name of the only TrustEnforcement that counts; PolicyName that of the only TrustPolicy.
const (
	EnforcementName = "cluster"
	PolicyName      = "default"
)

// UseVerb is the RBAC verb on trustclasses that lets a user, and a pod's service account, run pods of a class.
const UseVerb = "use"
