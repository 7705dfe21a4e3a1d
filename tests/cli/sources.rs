//! Where a value of the configuration comes from: flag, environment, file, default.

use serde_json::json;

use super::{refusal, sound_config};
use crate::common::vsync::Vsync;
use crate::ends::{Ends, Untouched};

#[test]
fn secrets_are_refused_as_flags_and_the_way_to_give_them_is_named() {
    let address = Untouched::new();
    let vsync = Vsync::new(&sound_config(&address.address()));
    for (key, variable) in [
        ("origin.vault.token", "VSYNC_ORIGIN_VAULT_TOKEN"),
        ("destination.vault.token", "VSYNC_DESTINATION_VAULT_TOKEN"),
        ("destinations.3.vault.token", "VSYNC_DESTINATIONS_3_VAULT_TOKEN"),
        ("origin.vault.approle.secret_id", "VSYNC_ORIGIN_VAULT_APPROLE_SECRET_ID"),
        ("origin.consul.token", "VSYNC_ORIGIN_CONSUL_TOKEN"),
    ] {
        for arguments in [
            vec![format!("--{key}"), "hvs.MARK".to_owned()],
            vec![format!("--{key}=hvs.MARK")],
        ] {
            let output = vsync.args(arguments).run();
            let line = refusal(output.expect_nowhere("hvs.MARK"));
            assert_eq!(
                line,
                format!(
                    "--{key}: a secret is not taken as a flag, since other users could see it there; set the variable {variable} or the key {key} of the config file"
                )
            );
        }
    }
    address.expect_untouched();
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let mut ends = Ends::new();
    ends.fill(1);
    let buckets = |arguments: &[&str], environment: &[(&str, &str)], path: &str| {
        let mut all = vec!["origin", "--once", "--origin.syncPath", path];
        all.extend_from_slice(arguments);
        let mut run = ends.vsync.args(all);
        for (name, value) in environment {
            run = run.env(name, value);
        }
        run.run().expect_code(0);
        let index = std::fs::read(ends.vsync.folder().join("sync").join(path).join("origin/index")).expect("an index");
        serde_json::from_slice::<Vec<String>>(&index).expect("an index").len()
    };
    assert_eq!(buckets(&[], &[], "default"), 20);
    ends.config["numBuckets"] = json!(3);
    ends.vsync.set_config(&ends.config);
    let environment = [("VSYNC_NUMBUCKETS", "5")];
    assert_eq!(buckets(&[], &[], "file"), 3);
    assert_eq!(buckets(&[], &environment, "environment"), 5);
    assert_eq!(buckets(&["--numBuckets", "7"], &environment, "flag"), 7);
    // Each part of the environment's names: camel case, lists, indexes, secrets.
    let line = refusal(
        &ends
            .vsync
            .args(["--once"])
            .env("VSYNC_DESTINATIONS_0_NUMWORKERS", "x")
            .run(),
    );
    assert_eq!(
        line,
        "destinations.0.numWorkers (VSYNC_DESTINATIONS_0_NUMWORKERS): must be a whole number from 1 to 256, found a string"
    );
    let token = ends.origin.vault.token.clone();
    ends.set("/origin", "vault.token", &json!("s.wrong"));
    ends.vsync.args(["origin", "--once"]).run().expect_code(1);
    ends.vsync
        .args(["origin", "--once"])
        .env("VSYNC_ORIGIN_VAULT_TOKEN", token)
        .run()
        .expect_code(0);
}

#[test]
fn an_unknown_variable_is_a_warning_and_one_of_the_original_a_mistake() {
    let ends = Ends::new();
    let output = ends
        .vsync
        .args(["check"])
        .env("VSYNC_NUMBUKETS", "3")
        .env("VSYNC_COLOUR", "blue")
        .run();
    output
        .expect_code(0)
        .expect_stderr("WARN  VSYNC_NUMBUKETS: unknown variable, ignored; did you mean VSYNC_NUMBUCKETS?")
        .expect_stderr("WARN  VSYNC_COLOUR: unknown variable, ignored");
    let line = refusal(&ends.vsync.args(["check"]).env("VSYNC_ORIGIN_DC", "dc1").run());
    assert_eq!(line, "VSYNC_ORIGIN_DC: no longer read, set VSYNC_ORIGIN_CONSUL_DC");
}

#[test]
fn a_config_file_that_others_can_read_is_warned_of_if_it_holds_a_secret() {
    use std::os::unix::fs::PermissionsExt;
    let ends = Ends::new();
    let file = ends.vsync.folder().join("vsync.json");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("own file");
    let warning = "vsync.json: holds a secret (destinations.0.vault.token) and is open to other users, chmod 600 it";
    mode(0o644);
    ends.vsync.args(["check"]).run().expect_code(0).expect_stderr(warning);
    mode(0o600);
    let output = ends.vsync.args(["check"]).run();
    output
        .expect_code(0)
        .expect(!output.stderr.contains("chmod"), "no warning");
}
