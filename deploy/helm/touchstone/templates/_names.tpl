{{/* What several templates need. Names are fixed: a cluster has one Touchstone, and documents can say `kubectl logs aias-0`. */}}

{{- define "touchstone.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: touchstone
{{- end }}

{{- define "touchstone.image" -}}
{{- $i := .root.Values.image -}}
{{ $i.repository }}/{{ .name }}:{{ $i.tag | default .root.Chart.AppVersion }}
{{- with index $i.digests .name }}@{{ . }}{{ end }}
{{- end }}

{{- define "touchstone.pod" -}}
priorityClassName: {{ .Values.priorityClass.name }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Tolerations of what must run before any node is trusted: on a node that nobody trusts, and on the control plane. */}}
{{- define "touchstone.tolerations" -}}
- {key: touchstone.dev/untrusted, operator: Exists}
- {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A container that may do nothing but what its program does. */}}
{{- define "touchstone.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "touchstone.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where agents and controller find AIAS. The kubelet puts the Service's address into their environment: no cluster DNS is needed, whose pods
     may wait for a trusted node themselves. */}}
{{- define "touchstone.address" -}}
{{- if eq .Values.aias.service.ipFamily "IPv6" }}[$(AIAS_SERVICE_HOST)]{{ else }}$(AIAS_SERVICE_HOST){{ end }}:{{ .Values.aias.service.port }}
{{- end }}

{{/* The volume by which a pod proves to AIAS who it is, and knows AIAS. */}}
{{- define "touchstone.access" -}}
- name: aias
  projected:
    defaultMode: 0444 # the kubelet gives the token to the pod's user alone
    sources:
      - serviceAccountToken: {audience: aias, expirationSeconds: 3600, path: token}
      - configMap:
          name: aias-ca # AIAS writes it; the pod waits for it
          items: [{key: ca.crt, path: ca.crt}]
      - configMap:
          name: aias-ca
          items: [{key: jwks.json, path: jwks.json}]
          optional: true # an older AIAS does not write it: then nothing recorded counts while it is away
{{- end }}

{{/* options ends with an error when .given names one of .own, which the chart sets itself. */}}
{{- define "touchstone.notGiven" -}}
{{- range .own }}
{{- if hasKey $.given . }}{{ fail (printf "%s.%s: the chart sets it; see the values beside %s" $.path . $.path) }}{{ end }}
{{- end }}
{{- end }}
