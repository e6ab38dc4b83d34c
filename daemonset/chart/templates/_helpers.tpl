{{- define "nodeagent.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "nodeagent.selector" -}}
app.kubernetes.io/name: nodeagent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nodeagent.labels" -}}
{{ include "nodeagent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "nodeagent.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "nodeagent.name" .) -}}
{{- end -}}

{{- define "nodeagent.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "nodeagent.token" -}}
{{- if or .Values.publish.enabled .Values.kubelet.enabled }}true{{ else }}false{{ end -}}
{{- end -}}

{{- /* A text in TOML: as in JSON, and escaped what JSON leaves and TOML or YAML do not take. */ -}}
{{- define "nodeagent.toml.text" -}}
{{- $text := toJson . }}
{{- range concat (untilStep 127 160 1) (list 65279 65534 65535) }}
{{- $text = replace (printf "%c" .) (printf "\\u%04x" .) $text }}
{{- end -}}
{{ $text }}
{{- end -}}

{{- /* One TOML value. Helm hands whole numbers as floats: they are written without a point. */ -}}
{{- define "nodeagent.toml.value" -}}
{{- if kindIs "string" . -}}
{{ include "nodeagent.toml.text" . }}
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ printf "%v" . }}{{ end -}}
{{- else if kindIs "slice" . -}}
[{{ range $i, $each := . }}{{ if $i }}, {{ end }}{{ include "nodeagent.toml.value" $each }}{{ end }}]
{{- else if or (kindIs "map" .) (kindIs "invalid" .) -}}
{{ fail (printf "config: %s is no value of a TOML key" (toJson .)) }}
{{- else -}}
{{ printf "%v" . }}
{{- end -}}
{{- end -}}

{{- define "nodeagent.toml.key" -}}
{{- if not (regexMatch "^[A-Za-z0-9_-]+$" .) }}{{ fail (printf "config: %q is no TOML key" .) }}{{ end -}}
{{ . }}
{{- end -}}

{{- define "nodeagent.toml.keys" -}}
{{- range $key, $value := . }}
{{ include "nodeagent.toml.key" $key }} = {{ include "nodeagent.toml.value" $value }}
{{- end -}}
{{- end -}}

{{- /* config as TOML: keys first, then sections, then lists of maps. */ -}}
{{- define "nodeagent.toml" -}}
{{- $keys := dict }}{{ $sections := dict }}{{ $lists := dict -}}
{{- range $name, $value := .Values.config -}}
{{- if kindIs "map" $value }}{{ $_ := set $sections $name $value -}}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}{{ $_ := set $lists $name $value -}}
{{- else }}{{ $_ := set $keys $name $value }}{{ end -}}
{{- end -}}
{{- include "nodeagent.toml.keys" $keys }}
{{- range $name, $values := $sections }}
[{{ include "nodeagent.toml.key" $name }}]
{{- include "nodeagent.toml.keys" $values }}
{{- end }}
{{- range $name, $entries := $lists }}
{{- range $entries }}
{{- if not (kindIs "map" .) }}{{ fail (printf "config.%s: %s among tables" $name (toJson .)) }}{{ end }}
[[{{ include "nodeagent.toml.key" $name }}]]
{{- include "nodeagent.toml.keys" . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "nodeagent.security" -}}
{{- $root := eq (int .Values.runAsUser) 0 -}}
runAsUser: {{ int .Values.runAsUser }}
runAsGroup: {{ int .Values.runAsUser }}
runAsNonRoot: {{ not $root }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
  {{- with .Values.capabilities }}
  add: [{{ join ", " . }}]
  {{- end }}
seccompProfile: {{ toJson .Values.seccompProfile }}
{{- with .Values.appArmorProfile }}
appArmorProfile: {{ toJson . }}
{{- end }}
{{- with .Values.seLinuxOptions }}
seLinuxOptions: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* Profiles that cannot work are refused here, not on the node. */ -}}
{{- define "nodeagent.checked" -}}
{{- $agent := dig "agent" dict (.Values.config | default dict) -}}
{{- $enforces := eq ($agent.mode | default "enforce") "enforce" -}}
{{- if and $enforces (has "nic" ($agent.enforce | default list)) (not .Values.hostNetwork) }}
{{- fail "config.agent.enforce has \"nic\": the NICs are the node's, so set hostNetwork: true (values-enforce-nic.yaml)" }}
{{- end }}
{{- if and $enforces (not .Values.writableSys) }}
{{- fail "config.agent.mode is \"enforce\": cgroups have to be writable (values-enforce.yaml)" }}
{{- end }}
{{- if and $enforces (not .Values.stateDir) }}
{{- fail "config.agent.mode is \"enforce\": stateDir has to be a directory of the node, or a crash cannot be undone" }}
{{- end }}
{{- end -}}
