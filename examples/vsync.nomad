# vsync as a job of Nomad, logged in to the origin's Vault by Nomad itself. `nomad job run vsync.nomad`.

job "vsync" {
  datacenters = ["us-east-1"]
  type        = "service"

  group "vsync" {
    # With sync info in Consul, 2: the second stands by and takes over when the first is gone.
    count = 1

    # A start that fails is told to `notify`, hence the pause. Exit code 2 is a mistake in the configuration.
    restart {
      attempts = 3
      interval = "1h"
      delay    = "5m"
      mode     = "delay"
    }

    task "vsync" {
      driver = "exec"

      # One static binary: `make static`.
      artifact {
        source      = "https://artifacts.example.com/vsync/vsync"
        destination = "local/vsync"
        mode        = "file"
      }

      config {
        command = "local/vsync"
        args    = ["--config", "local/vsync.json"]
      }

      # Nomad renews this token and writes a new one into the same file, which vsync reads again.
      vault {
        role        = "vsync"
        change_mode = "noop"
      }

      template {
        destination = "local/vsync.json"
        data        = <<-EOT
          {
            "name": "{{ env "NOMAD_ALLOC_ID" }}",
            "log": { "type": "json" },
            "origin": {
              "vault": { "address": "https://vault.us-east-1.example.com:8200" },
              "consul": { "address": "http://{{ env "attr.unique.network.ip-address" }}:8500" },
              "mounts": ["secret/"]
            },
            "destination": {
              "name": "eu-west-1",
              "vault": {
                "address": "https://vault.eu-west-1.example.com:8200",
                "approle": { "role_id": "b1f2f2b5-7c7d-4c3a-8a4f-0f0d5f4f9c11" }
              },
              "consul": { "address": "https://consul.eu-west-1.example.com:8501" }
            }
          }
        EOT
      }

      # Files below secrets/ are kept in memory and can be read by this task alone.
      template {
        destination = "secrets/eu-west-1-secret-id"
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/vsync\" }}{{ .eu_west_1_secret_id }}{{ end }}"
      }

      env {
        VSYNC_ORIGIN_VAULT_TOKENFILE                   = "${NOMAD_SECRETS_DIR}/vault_token"
        VSYNC_DESTINATION_VAULT_APPROLE_SECRET_ID_FILE = "${NOMAD_SECRETS_DIR}/eu-west-1-secret-id"
      }

      # A stop takes 2 seconds; after a fatal error `notify` may take 10.
      kill_signal  = "SIGTERM"
      kill_timeout = "15s"

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
