//! The other ways to log in: userpass, JWT, Kubernetes, and secret ids that come wrapped.

use serde_json::{Value, json};

use super::{origin_policy, policy};
use crate::common::issuer::{Issuer, KubernetesApi};
use crate::common::unique;
use crate::common::vault::Vault;
use crate::common::vsync::Output;
use crate::ends::{Ends, expect_prompt_end};

/// A token's life that ends, and can't be prolonged, within a test.
const SHORT: &str = "2s";

fn errors(output: &Output) -> String {
    output
        .reports
        .iter()
        .map(|report| report["errors"].to_string())
        .collect()
}

/// Asserts that a cycle fails for this reason, with nothing written.
#[track_caller]
fn expect_refused(ends: &Ends, expected: &str) {
    let output = ends.once();
    output.expect_code(1);
    output.expect(errors(&output).contains(expected), expected);
    ends.expect_untouched_destination();
}

/// Runs both roles until each has logged in three times at the origin by `line`, each token living for [`SHORT`].
#[track_caller]
fn expect_repeated_logins(ends: &mut Ends, line: &str) {
    ends.set_both("tick", &json!("200ms"));
    let daemon = ends.daemon();
    daemon.wait("each has logged in three times", || {
        (ends.origin_proxy.count(line.to_owned()) >= 6).then_some(())
    });
    let late = daemon.reports().len();
    ends.origin.put("late", json!({}));
    daemon.wait_for_report(late, |report| report["cycle"] == "destination" && report["paths"] == 2);
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    for report in &output.reports {
        assert_eq!(report["errors"], json!([]), "{report}");
    }
}

/// A policy for the origin's mount.
fn rules(ends: &Ends) -> String {
    policy(&ends.origin.vault, &origin_policy(&ends.origin))
}

#[test]
fn userpass_logs_in_again_and_again_with_the_password_that_is_in_the_file() {
    let mut ends = Ends::new();
    ends.fill(1);
    let (vault, path, name) = (ends.origin.vault.clone(), unique("people"), unique("vsync"));
    vault.enable_auth(&path, "userpass");
    let rules = rules(&ends);
    let user = |password: &str| {
        let body =
            json!({ "password": password, "token_policies": [rules], "token_ttl": SHORT, "token_max_ttl": SHORT });
        vault.ok("POST", &format!("auth/{path}/users/{name}"), Some(&body));
    };
    user("hvs.first");
    ends.vsync.folder().write("password", "hvs.wrong");
    let login = json!({ "path": path, "username": name, "passwordFile": "password" });
    ends.log_in("/origin", &json!({ "userpass": login }));
    expect_refused(
        &ends,
        &format!("the name {name} is unknown, or the password in password is wrong"),
    );
    ends.once().expect_nowhere("hvs.wrong");
    std::fs::remove_file(ends.vsync.folder().join("password")).expect("a file");
    expect_refused(&ends, "by userpass: read password: entity not found");
    ends.vsync.folder().write("password", "hvs.first\n");
    ends.once().expect_code(0).expect_nowhere("hvs.first");
    user("hvs.second");
    ends.vsync.folder().write("password", "hvs.second\n");
    expect_repeated_logins(&mut ends, &format!("POST /v1/auth/{path}/login/{name}"));
}

#[test]
fn a_jwt_logs_in_and_is_read_anew_each_time() {
    let mut ends = Ends::new();
    ends.fill(1);
    let (vault, path, issuer) = (ends.origin.vault.clone(), unique("jwt"), Issuer::new());
    vault.enable_auth(&path, "jwt");
    let config = json!({ "jwt_validation_pubkeys": [issuer.public_key()] });
    vault.ok("POST", &format!("auth/{path}/config"), Some(&config));
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vsync"], "token_policies": [rules(&ends)],
        "token_ttl": SHORT, "token_max_ttl": SHORT,
    });
    vault.ok("POST", &format!("auth/{path}/role/vsync"), Some(&role));
    let claims = |audience: &str, life: i64| json!({ "sub": "vsync", "aud": audience, "life": life });
    let good = issuer.sign(claims("vsync", 600));
    let login = |role: &str| json!({ "jwt": { "path": path, "role": role, "jwtFile": "jwt" } });
    let refused = "the server refuses the JWT in jwt (expired, for another audience or subject, of another issuer), or has no role";
    let bad = [
        issuer.sign(claims("vsync", -600)),
        issuer.sign(claims("others", 600)),
        Issuer::new().sign(claims("vsync", 600)),
        "hvs.none".to_owned(),
    ];
    let folder = ends.vsync.folder().join("jwt");
    for jwt in &bad {
        std::fs::write(&folder, jwt).expect("a file");
        ends.log_in("/origin", &login("vsync"));
        expect_refused(&ends, refused);
        ends.once().expect_nowhere(jwt);
    }
    std::fs::write(&folder, &good).expect("a file");
    ends.log_in("/origin", &login("others"));
    expect_refused(&ends, refused);
    ends.log_in("/origin", &login("vsync"));
    ends.once().expect_code(0).expect_nowhere(&good);
    expect_repeated_logins(&mut ends, &format!("POST /v1/auth/{path}/login"));
    // What was good at one login says nothing of the next.
    ends.origin_proxy.forget();
    std::fs::write(&folder, &bad[0]).expect("a file");
    ends.once().expect_code(1);
}

#[test]
fn a_service_account_of_kubernetes_logs_in() {
    let mut ends = Ends::new();
    ends.fill(1);
    let (vault, path, api) = (
        ends.origin.vault.clone(),
        unique("kubernetes"),
        KubernetesApi::start("vsync"),
    );
    vault.enable_auth(&path, "kubernetes");
    let config = json!({
        "kubernetes_host": api.address(), "kubernetes_ca_cert": api.ca(), "disable_local_ca_jwt": true,
        "token_reviewer_jwt": api.issuer().sign(json!({ "sub": "reviewer", "life": 600 })),
    });
    vault.ok("POST", &format!("auth/{path}/config"), Some(&config));
    let role = json!({
        "bound_service_account_names": ["vsync"], "bound_service_account_namespaces": ["default"],
        "token_policies": [rules(&ends)], "token_ttl": SHORT, "token_max_ttl": SHORT,
    });
    vault.ok("POST", &format!("auth/{path}/role/vsync"), Some(&role));
    let login = json!({ "kubernetes": { "path": path, "role": "vsync", "jwtFile": "jwt" } });
    ends.log_in("/origin", &login);
    let folder = ends.vsync.folder();
    folder.write("jwt", api.token("somebody"));
    expect_refused(
        &ends,
        "there is no Kubernetes login at this path; correct `vault.kubernetes.path`, or the cluster does not know the token \
         in jwt",
    );
    folder.write("jwt", api.token("vsync"));
    ends.once().expect_code(0).expect_nowhere(&api.token("vsync"));
    assert!(api.asked() >= 1);
    expect_repeated_logins(&mut ends, &format!("POST /v1/auth/{path}/login"));
    ends.log_in(
        "/origin",
        &json!({ "kubernetes": { "path": path, "role": "others", "jwtFile": "jwt" } }),
    );
    ends.once().expect_code(1).expect_nowhere(&api.token("vsync"));
}

/// An AppRole whose secret ids come wrapped.
struct Wrapping {
    vault: Vault,
    role: String,
    role_id: String,
}

impl Wrapping {
    fn new(ends: &Ends) -> Wrapping {
        let (vault, role) = (ends.origin.vault.clone(), unique("wrapping"));
        let (role_id, _) = vault.approle(
            &role,
            &[&rules(ends)],
            json!({ "token_ttl": SHORT, "token_max_ttl": SHORT }),
        );
        Wrapping { vault, role, role_id }
    }

    fn wrap(&self, path: &str, body: &Value, life: &str) -> String {
        self.wrap_answer("POST", path, body, life)
    }

    fn wrap_answer(&self, method: &str, path: &str, body: &Value, life: &str) -> String {
        let body = body.to_string();
        let answer = self
            .vault
            .send(
                method,
                &format!("/v1/{path}"),
                &[("X-Vault-Wrap-TTL", life)],
                Some(body.as_bytes()),
            )
            .expect("an answer")
            .expect_success(path)
            .json();
        answer["wrap_info"]["token"]
            .as_str()
            .expect("a wrapping token")
            .to_owned()
    }

    fn secret_id(&self, life: &str) -> String {
        self.wrap(&format!("auth/approle/role/{}/secret-id", self.role), &json!({}), life)
    }

    fn login(&self) -> Value {
        json!({ "approle": { "role_id": self.role_id, "secret_id_file": "wrapped", "wrapped": true } })
    }

    /// Whether a wrapping token still gives out what it holds.
    fn is_unused(&self, token: &str) -> bool {
        let body = json!({ "token": token });
        self.vault.request("POST", "sys/wrapping/lookup", Some(&body)).0 == 200
    }
}

#[test]
fn a_wrapped_secret_id_is_unwrapped_once_and_serves_all_roles_for_good() {
    let mut ends = Ends::new();
    ends.fill(1);
    let wrapping = Wrapping::new(&ends);
    let token = wrapping.secret_id("60s");
    ends.vsync.folder().write("wrapped", format!("{token}\n"));
    ends.log_in("/origin", &wrapping.login());
    expect_repeated_logins(&mut ends, "POST /v1/auth/approle/login");
    assert_eq!(ends.origin_proxy.count("POST /v1/sys/wrapping/unwrap"), 1);
    assert!(!wrapping.is_unused(&token));
    // The next start finds it used, and can't know by whom.
    let output = ends.once();
    output.expect_code(1).expect_nowhere(&token);
    let expected = "the wrapping token in wrapped: it was used before or has expired; unless vsync itself used it (at an earlier \
                    start), somebody else may have read the secret id: destroy that one, and wrap a new one";
    output.expect(errors(&output).contains(expected), expected);
    ends.vsync.folder().write("wrapped", wrapping.secret_id("60s"));
    ends.once().expect_code(0);
}

#[test]
fn a_wrapping_token_that_is_replaced_while_vsync_runs_is_taken_up() {
    let mut ends = Ends::new();
    ends.fill(1);
    let wrapping = Wrapping::new(&ends);
    ends.vsync.folder().write("wrapped", wrapping.secret_id("60s"));
    ends.log_in("/origin", &wrapping.login());
    ends.set_both("tick", &json!("200ms"));
    let daemon = ends.daemon();
    daemon.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    ends.vsync.folder().write("wrapped", wrapping.secret_id("60s"));
    daemon.wait("the new one is unwrapped", || {
        (ends.origin_proxy.count("POST /v1/sys/wrapping/unwrap") == 2).then_some(())
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_wrapping_token_that_somebody_slipped_in_is_not_believed() {
    let mut ends = Ends::new();
    ends.fill(1);
    let wrapping = Wrapping::new(&ends);
    ends.log_in("/origin", &wrapping.login());
    let used = "it was used before or has expired";
    let foreign = "it holds no secret id of auth/approle/ (it was made at another path), and was not used";
    let read = wrapping.secret_id("60s");
    wrapping.vault.with_token(&read).ok("POST", "sys/wrapping/unwrap", None);
    // Whoever has the secret id may wrap it again; a path that anybody may write to can be called like the right one.
    let places = ["", "x/"].map(|start| format!("cubbyhole/{start}auth/approle/role/{}/secret-id", wrapping.role));
    let [again, again_deeper] = places.map(|place| {
        wrapping
            .vault
            .ok("POST", &place, Some(&json!({ "secret_id": "hvs.X" })));
        wrapping.wrap_answer("GET", &place, &json!({}), "60s")
    });
    let slipped = wrapping.wrap("sys/wrapping/wrap", &json!({ "secret_id": "hvs.X" }), "60s");
    for (token, expected) in [
        (read.as_str(), used),
        ("hvs.never-one", used),
        (&wrapping.vault.token, used),
        (&slipped, foreign),
        (&again, foreign),
        (&again_deeper, foreign),
        (&wrapping.wrap("auth/token/create", &json!({}), "60s"), foreign),
    ] {
        ends.vsync.folder().write("wrapped", token);
        expect_refused(&ends, expected);
        ends.once().expect_nowhere(token);
    }
    assert!(
        wrapping.is_unused(&slipped),
        "what is not believed is left to be looked at"
    );
    assert_eq!(ends.origin_proxy.count("POST /v1/sys/wrapping/unwrap"), 0);
    // A wrapped one that is not said to be wrapped is only a wrong secret id.
    let mut plain = wrapping.login();
    plain["approle"]["wrapped"] = json!(false);
    ends.vsync.folder().write("wrapped", wrapping.secret_id("60s"));
    ends.log_in("/origin", &plain);
    expect_refused(&ends, "the role id or the secret id is wrong, used up or expired");
}

#[test]
fn more_than_one_way_to_log_in_is_refused() {
    let mut ends = Ends::new();
    ends.log_in(
        "/origin",
        &json!({ "jwt": { "jwtFile": "jwt" }, "userpass": { "username": "u", "passwordFile": "p" } }),
    );
    ends.once().expect_code(2).expect_stderr(
        "origin.vault.jwt.jwtFile and origin.vault.userpass.username: two ways to log in to one Vault, keep one",
    );
}
