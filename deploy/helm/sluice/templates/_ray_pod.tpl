{{- /* The template of a Ray pod: (dict "root" $ "of" .Values.ray.cpuNodes "component" "ray-cpu" "image" "ray") */ -}}
{{- define "sluice.rayPod" -}}
{{- $root := .root -}}
{{- $head := eq .component "ray-head" -}}
{{- $ask := "import sys, urllib.request as u; sys.exit(any(w not in u.urlopen(a, timeout=4).read() for a, w in (%s)))" -}}
{{- $raylet := `("http://127.0.0.1:52365/api/local_raylet_healthz", b"success"),` -}}
{{- $gcs := `("http://127.0.0.1:8265/api/gcs_healthz", b"success"),` -}}
{{- $proxy := `("http://127.0.0.1:8000/-/healthz", b"success"),` -}}
metadata:
  labels: {{- include "sluice.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with .of.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if and $head $root.Values.ray.autoscaling }}
  # KubeRay makes the head a service account of its own, with which the autoscaler asks for pods.
  {{- else }}
  serviceAccountName: {{ include "sluice.serviceAccount" $root }}
  automountServiceAccountToken: false
  {{- end }}
  enableServiceLinks: false
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{- range . }}
    - name: {{ . }}
  {{- end }}
  {{- end }}
  # Ray drains a node for at most 30 s after SIGTERM, and replicas stop within that or their own time.
  terminationGracePeriodSeconds: {{ add (include "sluice.drainSeconds" $root | int) 100 }}
  securityContext: {{- include "sluice.podSecurity" $root | nindent 4 }}
  {{- include "sluice.placement" (list $root .of .component) | nindent 2 }}
  {{- if $head }}
  {{- include "sluice.createTopics" (list $root "ray") | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ $head | ternary "ray-head" "ray-worker" }}
      image: {{ include "sluice.image" (list $root .image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      env:
        # Ray runs replicas at niceness 15 otherwise: under load they would hardly run beside other processes.
        - {name: RAY_worker_niceness, value: "0"}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        - {name: HOME, value: /tmp}
        {{- include "sluice.secretVariables" $root | nindent 8 }}
      ports:
        {{- if $head }}
        - {name: gcs, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: serve, containerPort: 8000}
        - {name: metrics, containerPort: 8080}
      # KubeRay's own probes need wget, which the image has not.
      startupProbe:
        exec: {command: [python, -c, {{ printf $ask $raylet | toJson }}]}
        periodSeconds: 5
        timeoutSeconds: 10
        failureThreshold: 60
      readinessProbe:
        exec: {command: [python, -c, {{ printf $ask (print $raylet ($head | ternary $gcs $proxy)) | toJson }}]}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: {{ $head | ternary 3 1 }}
      livenessProbe:
        exec: {command: [python, -c, {{ printf $ask (print $raylet ($head | ternary $gcs "")) | toJson }}]}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 12
      resources: {{- toYaml .of.resources | nindent 8 }}
      securityContext: {{- include "sluice.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: cache, mountPath: /var/cache/sluice}
        - {name: data, mountPath: /var/lib/sluice}
        {{- if $head }}
        - {name: settings, mountPath: /etc/sluice/settings, readOnly: true}
        {{- end }}
        {{- if not $head }}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- end }}
        {{- include "sluice.secretMounts" $root | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {}
    - name: cache
      emptyDir: {}
    - name: data
      emptyDir: {}
    {{- if $head }}
    - name: settings
      configMap: {name: {{ include "sluice.fullname" $root }}}
    {{- end }}
    {{- if not $head }}
    - name: shared-memory
      emptyDir: {medium: Memory, sizeLimit: {{ .of.sharedMemory }}}
    {{- end }}
    {{- include "sluice.secretVolumes" $root | nindent 4 }}
{{- end -}}
