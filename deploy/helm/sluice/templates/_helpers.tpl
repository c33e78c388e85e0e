{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sluice.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Of Prometheus: the rules of ops/prometheus are for jobs whose names begin with sluice. */ -}}
{{- define "sluice.job" -}}
{{- hasPrefix "sluice" .Release.Name | ternary .Release.Name (printf "sluice-%s" .Release.Name) -}}
{{- end -}}

{{- /* image: (list $ "worker") */ -}}
{{- define "sluice.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ index $image (index . 1) }}:{{ default $root.Chart.AppVersion $image.tag -}}
{{- end -}}

{{- define "sluice.drainSeconds" -}}
{{- dig "intake" "drain_seconds" 20 .Values.settings | float64 | ceil | int -}}
{{- end -}}

{{- define "sluice.strimziUser" -}}
{{ include "sluice.fullname" . }}
{{- end -}}

{{- /* The settings of the pods as YAML: the chart's, with .Values.settings over them. */ -}}
{{- define "sluice.settings" -}}
{{- $made := dict -}}
{{- if ne .Values.mode "ray" -}}
{{- $_ := set $made "telemetry" (dict "host" "0.0.0.0" "metrics_port" 9464) -}}
{{- end -}}
{{- with .Values.kafka.strimzi -}}
{{- if .cluster -}}
{{- $_ := set $made "kafka" (dict
    "bootstrap_servers" (printf "%s-kafka-bootstrap:%v" .cluster .port)
    "security_protocol" "SSL"
    "ssl_cafile" "/etc/sluice/secrets/strimzi-ca/ca.crt"
    "ssl_certfile" "/etc/sluice/secrets/strimzi-user/user.crt"
    "ssl_keyfile" "/etc/sluice/secrets/strimzi-user/user.key") -}}
{{- end -}}
{{- end -}}
{{- if .Values.policy -}}
{{- $_ := set $made "policy" "/etc/sluice/policy/policy.yaml" -}}
{{- end -}}
{{- mustMergeOverwrite $made (deepCopy .Values.settings) | toYaml -}}
{{- end -}}

{{- define "sluice.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sluice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What all pods have: secrets as variables. */ -}}
{{- define "sluice.secretVariables" -}}
{{- range $name, $from := .Values.secretVariables }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}}
{{- end -}}
{{- end -}}

{{- define "sluice.secretVolumes" -}}
{{- if .Values.policy }}
- name: policy
  configMap: {name: {{ include "sluice.fullname" . }}-policy}
{{- end }}
{{- with .Values.kafka.strimzi.cluster }}
- name: secret-strimzi-ca
  secret: {secretName: {{ . }}-cluster-ca-cert, defaultMode: 0440}
- name: secret-strimzi-user
  secret: {secretName: {{ include "sluice.strimziUser" $ }}, defaultMode: 0440}
{{- end }}
{{- range $name, $from := .Values.secretFiles }}
- name: secret-{{ $name }}
  secret: {secretName: {{ $from.secret | quote }}, defaultMode: 0440}
{{- end -}}
{{- end -}}

{{- define "sluice.secretMounts" -}}
{{- if .Values.policy }}
- {name: policy, mountPath: /etc/sluice/policy, readOnly: true}
{{- end }}
{{- if .Values.kafka.strimzi.cluster }}
- {name: secret-strimzi-ca, mountPath: /etc/sluice/secrets/strimzi-ca, readOnly: true}
- {name: secret-strimzi-user, mountPath: /etc/sluice/secrets/strimzi-user, readOnly: true}
{{- end }}
{{- range $name, $_ := .Values.secretFiles }}
- {name: secret-{{ $name }}, mountPath: /etc/sluice/secrets/{{ $name }}, readOnly: true}
{{- end -}}
{{- end -}}

{{- /* Creates the topics before a pod starts, where Strimzi does not: (list $ "worker"), the image's name second. */ -}}
{{- define "sluice.createTopics" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.kafka.topics.create (not $root.Values.kafka.strimzi.cluster) }}
initContainers:
  - name: topics
    image: {{ include "sluice.image" . }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [sluice, topics, create, --config, /etc/sluice/settings/sluice.yaml]
    args: [--partitions, "{{ $root.Values.kafka.topics.partitions }}", --replication-factor, "{{ $root.Values.kafka.topics.replicas }}"]
    env: {{- include "sluice.secretVariables" $root | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 256Mi}
      limits: {memory: 512Mi}
    securityContext: {{- include "sluice.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: settings, mountPath: /etc/sluice/settings, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- include "sluice.secretMounts" $root | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* Where pods of a kind go: (list $ .Values.worker "worker") */ -}}
{{- define "sluice.placement" -}}
{{- $root := index . 0 -}}
{{- $of := index . 1 -}}
{{- with $of.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $of.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $of.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "sluice.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ index $ 2 }}
{{- end }}
{{- end -}}
