package admission

import arv1 "k8s.io/api/admissionregistration/v1"

// templates are the objects that controllers make pods from, with the path of the template.
var templates = []struct {
	name, path string
	rules      []rule
}{
	{"workloads", "spec.template", []rule{
		{group: "apps", resources: []string{"deployments", "replicasets", "statefulsets", "daemonsets"}},
		{group: "batch", resources: []string{"jobs"}},
		{resources: []string{"replicationcontrollers"}},
	}},
	{"cronjobs", "spec.jobTemplate.spec.template", []rule{{group: "batch", resources: []string{"cronjobs"}}}},
	{"podtemplates", "template", []rule{{resources: []string{"podtemplates"}}}},
}

// templatePolicies demand "use" of whoever writes a template: the pods are made by controllers, which may use every class.
func templatePolicies() []policy {
	var out []policy
	for _, t := range templates {
		p := policy{
			name: t.name, about: "whoever writes a template of pods with a class must be allowed to use the class",
			when: []variable{{"template-changed", `oldObject == null || object.` + t.path + ` != oldObject.` + t.path}},
			variables: []variable{
				{"own", `object.?` + t.path + `.?metadata.?labels[?CLASS_LABEL].orValue('')`},
				{"imposed", namespaceClass},
				{"class", `variables.imposed != '' ? variables.imposed : variables.own`},
			},
			checks: []check{
				{
					`variables.class == '' || authorizer` + mayUse,
					`'user ' + request.userInfo.username + ' may not use trust class ' + variables.class + ': it needs the verb "use" on trustclasses ' + variables.class + ' by a ClusterRoleBinding'`,
				},
				{
					`variables.imposed == '' || variables.own == '' || variables.own == variables.imposed`,
					`'all pods of namespace ' + request.namespace + ' have the trust class ' + variables.imposed + ', by its label; this template has "' + variables.own + '"'`,
				},
			},
		}
		for _, r := range t.rules {
			r.operations = []arv1.OperationType{arv1.Create, arv1.Update}
			p.rules = append(p.rules, r)
		}
		out = append(out, p)
	}
	return out
}

// daemonSets writes the class's node selector into the template, too. The DaemonSet controller makes one pod for each node that the template
// selects: without this, pods for nodes that do not meet the class would stay Pending for ever, and hold up every rollout.
func daemonSets() policy {
	return policy{
		name: "class-of-daemonsets", about: "a DaemonSet of a class makes pods for the nodes that meet it, only",
		rules: []rule{{group: "apps", resources: []string{"daemonsets"}, operations: []arv1.OperationType{arv1.Create, arv1.Update}}},
		variables: append(daemonSetClass(),
			variable{"selector", `CLASS_NODE_LABEL + variables.class`},
			variable{"old", `object.spec.template.spec.?nodeSelector.orValue({})`},
		),
		when: daemonSetChanged,
		patch: `(variables.old.filter(k, k.startsWith(CLASS_NODE_LABEL) && k != variables.selector).map(k,
				JSONPatch{op: 'remove', path: '/spec/template/spec/nodeSelector/' + jsonpatch.escapeKey(k)})) +
			(!variables.class.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$') ? [] : has(object.spec.template.spec.nodeSelector)
				? [JSONPatch{op: 'add', path: '/spec/template/spec/nodeSelector/' + jsonpatch.escapeKey(variables.selector), value: 'true'}]
				: [JSONPatch{op: 'add', path: '/spec/template/spec/nodeSelector', value: {variables.selector: 'true'}}])`,
	}
}

var daemonSetChanged = []variable{{"maybe-class", `oldObject == null || object.spec.template != oldObject.spec.template`}}

// daemonSetClass is the class that pods of a DaemonSet will have.
func daemonSetClass() []variable {
	return []variable{
		{"own", `object.spec.template.?metadata.?labels[?CLASS_LABEL].orValue('')`},
		{"imposed", namespaceClass},
		{"class", `variables.imposed != '' ? variables.imposed : variables.own`},
	}
}

// daemonSetTolerations writes the tolerations of the class into the template, too: the DaemonSet controller looks there, not at the pods, and would
// else take a pod of a class that leaves levels out off a node where only those fail. What tolerates our taint otherwise goes: pods of the class
// would be refused for it. Only copies of tolerations can be written back.
func daemonSetTolerations() policy {
	const toleration = `Object.spec.template.spec.tolerations`
	return policy{
		name: "tolerations-of-daemonsets", about: "a DaemonSet of a class that leaves levels out keeps its pods where only those levels fail",
		rules: []rule{{group: "apps", resources: []string{"daemonsets"}, operations: []arv1.OperationType{arv1.Create, arv1.Update}}},
		table: true, aid: true,
		when: daemonSetChanged,
		variables: append(daemonSetClass(),
			untrusted,
			variable{"known", `params.?classes[?variables.class].hasValue()`},
			variable{"old", `object.spec.template.spec.?tolerations.orValue([])`},
			variable{"others", `variables.old.filter(t, !has(t.key) || t.key != UNTRUSTED_TAINT)`},
		),
		patch: `!variables.known || size(variables.untrusted) == 0 && size(variables.others) == size(variables.old) ? [] :
			[JSONPatch{op: 'add', path: '/spec/template/spec/tolerations', value:
				variables.others.map(t, ` + toleration + `{?key: t.?key, ?operator: t.?operator, ?value: t.?value, ?effect: t.?effect, ?tolerationSeconds: t.?tolerationSeconds}) +
				(size(variables.untrusted) == 0 ? [] :
					[` + toleration + `{key: UNTRUSTED_TAINT, operator: 'Exists', effect: 'NoSchedule'}] +
					variables.untrusted.map(v, ` + toleration + `{key: UNTRUSTED_TAINT, operator: 'Equal', value: v, effect: 'NoExecute'}) +
					[` + toleration + `{key: UNTRUSTED_TAINT, operator: 'Exists', effect: 'NoExecute',
						tolerationSeconds: int(params.classes[variables.class].graceSeconds)}])}]`,
	}
}
