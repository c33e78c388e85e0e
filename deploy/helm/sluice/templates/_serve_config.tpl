{{- /* The Serve config (docs/ray-serve.md), for `sluice deploy check` too. The model is user_config: a change restarts nothing. */ -}}
{{- define "sluice.serveConfig" -}}
{{- $settings := include "sluice.settings" . | fromYaml -}}
{{- $model := get $settings "model" | default "mst-lite" -}}
{{- $judging := omit $settings "model" -}}
{{- $ray := .Values.ray -}}
{{- $stop := add (include "sluice.drainSeconds" . | int) 40 -}}
{{- $answer := dig "gateway" "timeout_seconds" 30 $settings -}}
{{- $requests := dig "gateway" "max_requests" 64 $settings -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
applications:
  - name: engine
    import_path: worker.apps.engine:build
    route_prefix: null
    args:
      settings: {{- toYaml $judging | nindent 8 }}
      calls_at_once: {{ $ray.engine.callsAtOnce }}
    deployments:
      - name: engine
        user_config: {model: {{ $model | quote }}}
        ray_actor_options: {num_cpus: {{ $ray.engine.cpus }}, num_gpus: {{ $ray.gpuNodes.enabled | ternary 1 0 }}}
        max_ongoing_requests: {{ $ray.engine.callsAtOnce }}
        autoscaling_config:
          min_replicas: {{ $ray.engine.minReplicas }}
          max_replicas: {{ $ray.engine.maxReplicas }}
          target_ongoing_requests: {{ sub $ray.engine.callsAtOnce 1 | max 1 }}
          upscale_delay_s: 10
          downscale_delay_s: 300
        health_check_period_s: 10
        health_check_timeout_s: 30
        graceful_shutdown_timeout_s: 60
  - name: intake
    import_path: worker.apps.intake:build
    route_prefix: null
    args:
      settings: {{- toYaml $judging | nindent 8 }}
    deployments:
      - name: intake
        user_config: {model: {{ $model | quote }}}
        ray_actor_options: {num_cpus: {{ $ray.intake.cpus }}}
        max_surge_percent: 100
        autoscaling_config:
          min_replicas: {{ $ray.intake.minReplicas }}
          max_replicas: {{ $ray.intake.maxReplicas }}
          upscale_delay_s: 15
          downscale_delay_s: 300
          policy:
            policy_function: worker.apps.autoscaling:LagPolicy
            policy_kwargs: {records_per_replica: {{ $ray.intake.recordsPerReplica }}}
        health_check_period_s: 10
        health_check_timeout_s: 30
        graceful_shutdown_timeout_s: {{ $stop }}
{{- if $ray.gateway.enabled }}
  - name: gateway
    import_path: worker.apps.gateway:build
    route_prefix: /gateway
    args:
      settings: {{- toYaml $judging | nindent 8 }}
    deployments:
      - name: gateway
        user_config: {model: {{ $model | quote }}}
        ray_actor_options: {num_cpus: {{ $ray.gateway.cpus }}}
        max_ongoing_requests: {{ add (int $requests) 16 }}
        autoscaling_config:
          min_replicas: {{ $ray.gateway.minReplicas }}
          max_replicas: {{ $ray.gateway.maxReplicas }}
          target_ongoing_requests: {{ div (int $requests) 2 | max 1 }}
          upscale_delay_s: 5
          downscale_delay_s: 300
        graceful_shutdown_timeout_s: {{ add (ceil (float64 $answer) | int) 15 }}
{{- end }}
{{- if and .Values.desk.enabled .Values.desk.onRay }}
  - name: desk
    import_path: worker.apps.desk:build
    route_prefix: /
    args:
      data: /var/lib/sluice
      settings: {{- toYaml $settings | nindent 8 }}
    deployments:
      - name: desk
        ray_actor_options: {num_cpus: 1}
        max_surge_percent: 0
{{- end }}
{{- end -}}
