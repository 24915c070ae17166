package admission

import arv1 "k8s.io/api/admissionregistration/v1"

// notController is true of requests that are not the controller's.
func (o Options) notController() variable {
	return variable{"not-controller", `request.userInfo.username != ` + quote(o.Controller())}
}

// newNodes taints each node when it is made: it is not trusted until it is proven to be. The controller adds NoExecute where it is wanted.
func newNodes() policy {
	return policy{
		name: "new-nodes", about: "a new node is not trusted",
		rules: []rule{{resources: []string{"nodes"}, operations: []arv1.OperationType{arv1.Create}}},
		patch: `object.spec.?taints.orValue([]).exists(t, t.key == UNTRUSTED_TAINT && t.effect == 'NoSchedule') ? [] :
			(has(object.spec.taints) ? [] : [JSONPatch{op: 'add', path: '/spec/taints', value: []}]) +
			[JSONPatch{op: 'add', path: '/spec/taints/-', value: Object.spec.taints{key: UNTRUSTED_TAINT, effect: 'NoSchedule'}}]`,
	}
}

// nodes keeps everyone but the controller from what is ours on a Node. Only that is compared: what kubelets and the controllers of
// Kubernetes write beside it is theirs.
func nodes(o Options) policy {
	return policy{
		name: "nodes", about: "labels, taint and condition of ours on nodes are written by the trust-controller only",
		rules: []rule{{resources: []string{"nodes", "nodes/status"}, operations: []arv1.OperationType{arv1.Create, arv1.Update}}},
		when:  []variable{o.notController()},
		variables: []variable{
			{"labels", `object.metadata.?labels.orValue({})`},
			{"oldLabels", `oldObject == null ? {} : oldObject.metadata.?labels.orValue({})`},
			{"taints", `object.?spec.?taints.orValue([]).filter(t, t.key == UNTRUSTED_TAINT)`},
			{"oldTaints", `oldObject == null ? [] : oldObject.?spec.?taints.orValue([]).filter(t, t.key == UNTRUSTED_TAINT)`},
			{"conditions", `object.?status.?conditions.orValue([]).filter(c, c.type == TRUSTED_CONDITION)`},
			{"oldConditions", `oldObject == null ? [] : oldObject.?status.?conditions.orValue([]).filter(c, c.type == TRUSTED_CONDITION)`},
		},
		checks: []check{
			{
				`variables.labels.all(k, !k.startsWith(NODE_LABELS) || k in variables.oldLabels && variables.oldLabels[k] == variables.labels[k]) &&
					variables.oldLabels.all(k, !k.startsWith(NODE_LABELS) || k in variables.labels)`,
				"node labels of Touchstone say what was proven of a node: only the trust-controller writes them",
			},
			{
				`oldObject == null ? variables.taints.exists(t, t.effect == 'NoSchedule')
					: variables.taints.all(t, t in variables.oldTaints) && variables.oldTaints.all(t, t in variables.taints)`,
				"the taint touchstone.dev/untrusted is on every new node, and leaves a node when it is trusted: only the trust-controller changes it",
			},
			{`variables.conditions == variables.oldConditions`, "the condition touchstone.dev/Trusted of a node is written by the trust-controller only"},
		},
	}
}

// bindings let schedulers place pods, nobody else: a Binding goes past node selector and taints. It does not show which pod it is about, so
// this holds for pods without a class, too.
func bindings(o Options) policy {
	return policy{
		name: "bindings", about: "pods are bound to nodes by schedulers only",
		rules: []rule{{resources: []string{"pods/binding", "bindings"}, operations: []arv1.OperationType{arv1.Create}}},
		checks: []check{{
			`request.userInfo.username in ` + list(o.Schedulers),
			`'user ' + request.userInfo.username + ' is not one of the schedulers that may bind pods (option schedulers of Touchstone)'`,
		}},
	}
}

// namespaces demand "use" of whoever gives a namespace a class, changes it or takes it away.
func namespaces() policy {
	use := func(class string) string {
		return `authorizer.group('touchstone.dev').resource('trustclasses').name(` + class + `).check(USE).allowed()`
	}
	return policy{
		name: "namespaces", about: "the class of a namespace is changed by those who may use it only",
		rules: []rule{{resources: []string{"namespaces", "namespaces/status", "namespaces/finalize"}, operations: []arv1.OperationType{arv1.Create, arv1.Update}}},
		when: []variable{{"class-changed", `object.metadata.?labels[?CLASS_LABEL].orValue('') !=
			(oldObject == null ? '' : oldObject.metadata.?labels[?CLASS_LABEL].orValue(''))`}},
		variables: []variable{
			{"new", ownClass},
			{"old", `oldObject == null ? '' : oldObject.metadata.?labels[?CLASS_LABEL].orValue('')`},
		},
		checks: []check{
			{`variables.old == '' || ` + use(`variables.old`), `'user ' + request.userInfo.username + ' may not use trust class ' + variables.old + ', so cannot take it from a namespace'`},
			{`variables.new == '' || ` + use(`variables.new`), `'user ' + request.userInfo.username + ' may not use trust class ' + variables.new + ', so cannot give it to a namespace'`},
		},
	}
}

// written are the objects that only the controller writes. A NodeTrust may be deleted by those whom RBAC lets: then the node proves itself anew; so may an
// ImageTrust, which is made again.
func written(o Options) policy {
	const group, version = "touchstone.dev", "v1alpha1"
	return policy{
		name: "written", about: "verdicts and the table of classes are written by the trust-controller only",
		rules: []rule{
			{group: group, versions: []string{version}, resources: []string{"nodetrusts", "nodetrusts/status", "imagetrusts", "imagetrusts/status"}, operations: []arv1.OperationType{arv1.Create, arv1.Update}},
			{group: group, versions: []string{version}, resources: []string{"trustadmissions"}, operations: []arv1.OperationType{arv1.Create, arv1.Update, arv1.Delete}},
		},
		when:   []variable{o.notController()},
		checks: []check{{`false`, `'only the trust-controller writes ' + request.resource.resource`}},
	}
}
