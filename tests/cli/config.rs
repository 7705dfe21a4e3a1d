//! Mistakes in the configuration, through the real binary.

use serde_json::{Value, json};

use super::{refusal, sound_config};
use crate::common::vsync::Vsync;
use crate::ends::Untouched;

/// Sets what is at `pointer`; null takes it away.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = config
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .expect("an object");
    match value {
        Value::Null => drop(parent.remove(key)),
        value => drop(parent.insert(key.to_owned(), value)),
    }
}

/// Where, what is put there (null: it is taken away), and what is said of it. Of values only the type is named.
const MISTAKES: &str = r#"
/numBuckets = 0 -> numBuckets: must be a whole number from 1 to 65535, found another number
/numBuckets = 65536 -> numBuckets: must be a whole number from 1 to 65535
/numBuckets = 1.5 -> numBuckets: must be a whole number from 1 to 65535
/numBuckets = "hvs.MARK" -> numBuckets: must be a whole number from 1 to 65535, found a string
/ignoreDeletes = "yes" -> ignoreDeletes: must be true or false, found a string
/maxDeletes = "101%" -> maxDeletes: must be a share like "50%", from 0% to 100%, or a whole number
/maxDeletes = -1 -> maxDeletes: must be a share
/log = { "level": "trace" } -> log.level: must be one of debug, info, warn, error
/log = { "type": "hvs.MARK" } -> log.type: must be one of console, json
/notify = { "command": "hvs.MARK" } -> notify.command: must be a list of strings, a program and its arguments, found a string
/notify = { "command": [] } -> notify.command: must name a program
/notify = { "command": [" "] } -> notify.command.0: must not be empty
/notify = { "command": ["a", 1] } -> notify.command.1: must be a string, found a number
/notify = { "webhook": "hvs.MARK" } -> notify.webhook: must start with http:// or https://
/notify = { "webhook": "http://host/hvs.MARK hook" } -> notify.webhook: must be percent-encoded
/notify = { "webhok": "hvs.MARK" } -> notify.webhok: unknown key, did you mean notify.webhook?
/origin/numWorkers = 0 -> origin.numWorkers: must be a whole number from 1 to 256
/origin/numWorkers = 257 -> origin.numWorkers: must be a whole number from 1 to 256
/destination/tick = "soon" -> destination.tick: must be a duration from 100ms to 8760h, written like 90s, 5m or 1h30m
/destination/timeout = 5 -> destination.timeout: must be a duration
/origin/vault/token = { "a": "hvs.MARK" } -> origin.vault.token: must be a string, not empty, without white space, found an object
/origin/vault/token = "hvs.MARK\n" -> origin.vault.token: must not hold white space
/origin/vault/address = "127.0.0.1:8200" -> origin.vault.address: must start with http:// or https://
/origin/vault/address = "http://me:hvs.MARK@host" -> origin.vault.address: must not hold a user or password
/origin/vault/address = "http://host/v1" -> origin.vault.address: must end after the host and port
/origin/vault/requestTimeout = "0s" -> origin.vault.requestTimeout: must be a duration
/origin/vault/maxRetries = 11 -> origin.vault.maxRetries: must be a whole number from 0 to 10
/origin/vault/rateLimit = 0 -> origin.vault.rateLimit: must be a whole number from 1 to
/origin/vault/namespace = "a//b" -> origin.vault.namespace: must not have an empty segment
/origin/mounts = "secret/" -> origin.mounts: must be a list of strings, each ending with /, found a string
/origin/mounts = ["secret"] -> origin.mounts.0: must end with /
/origin/mounts = ["/secret/"] -> origin.mounts.0: must not start with /
/origin/mounts = ["a/", "a/b/"] -> origin.mounts.1: lies in, equals or holds the data path at index 0
/origin/include = ["(hvs.MARK"] -> origin.include.0: not a regular expression
/origin/exclude = [1] -> origin.exclude.0: must be a string, found a number
/origin/syncPath = "../x" -> origin.syncPath: must not have an empty segment, nor one that is . or ..
/origin/auditListen = "hvs.MARK:1" -> origin.auditListen: must be an IP address and a port like 127.0.0.1:8202 or [::1]:8202, or unix:/path
/origin/auditListen = 8202 -> origin.auditListen: must be a string, an IP address and a port like 127.0.0.1:8202 or [::1]:8202, or unix:/path, found a number
/origin/auditListen = "0.0.0.0:8202" -> origin.auditListen: others than this host can reach that address, so list the addresses of the origin's servers in origin.auditAllow (VSYNC_ORIGIN_AUDITALLOW)
/origin/auditAllow = ["hvs.MARK"] -> origin.auditAllow.0: must be an IP address, or a network like 10.0.0.0/8 whose address ends with its prefix
/origin/auditAllow = "10.0.0.5" -> origin.auditAllow: must be a list of strings, IP addresses or networks like 10.0.0.0/8, found a string
/destination/auditListen = "127.0.0.1:8202" -> destination.auditListen: no key of a destination, write it under origin
/destination/transforms = [{ "from": "a" }] -> destination.transforms.0.to: is missing
/destination/transforms = [{ "from": "(", "to": "a" }] -> destination.transforms.0.from: not a regular expression
/destination/transforms = [{ "form": "a", "to": "a" }] -> destination.transforms.0.form: unknown key, did you mean from?
/numBukets = 20 -> numBukets: unknown key, did you mean numBuckets?
/origin/vault/approl = { "role_id": "hvs.MARK" } -> origin.vault.approl: unknown key, did you mean origin.vault.approle?
/origin/vault/frobnicate = {} -> origin.vault.frobnicate: unknown key; `vsync help config` lists all
/origin/transforms = [] -> origin.transforms: no key of the origin, write it under a destination
/destination/numBuckets = 3 -> destination.numBuckets: no key of destination, write numBuckets at the top level
/syncPath = "vsync/" -> syncPath: no top-level key, write origin.syncPath and, for a destination, destination.syncPath
/origin/dc = "dc1" -> origin.dc: no longer read, write origin.consul.dc
/origin/vault/token = null -> origin.vault: no way to log in, give one of origin.vault.token (VSYNC_ORIGIN_VAULT_TOKEN)
/origin/vault/tokenFile = "t" -> origin.vault.token and origin.vault.tokenFile: two ways to log in to one Vault, keep one
/notify = { "webhookFile": "hvs.MARK" } -> notify.webhookFile: the file can't be read, or is empty
/notify = { "webhookFile": "/dev/null" } -> notify.webhookFile: the file can't be read, or is empty
/origin/vault/approle = { "wrapped": true, "role_id": "r" } -> origin.vault.token and origin.vault.approle.role_id: two ways to log in
/origin/vault/kubernetes = { "role": "r" } -> origin.vault.token and origin.vault.kubernetes.role: two ways to log in
/origin/vault/jwt = { "jwtFile": "f" } -> origin.vault.token and origin.vault.jwt.jwtFile: two ways to log in
/origin/vault/cert = { "path": "c" } -> origin.vault.token and origin.vault.cert.path: two ways to log in
/origin/vault/userpass = { "username": "a/b" } -> origin.vault.userpass.username: must not hold a slash
/origin/vault/userpass = { "password": "hvs.MARK" } -> origin.vault.userpass.password: unknown key; `vsync help config` lists all
/origin/vault/tls = { "skipVerify": "yes" } -> origin.vault.tls.skipVerify: must be true or false, found a string
/origin/vault/tls = { "caCert": "hvs.MARK" } -> origin.vault.tls.caCert: origin.vault.address is no https:// address, so nothing would be encrypted
/origin/vault/tls = { "cacert": "hvs.MARK" } -> origin.vault.tls.cacert: unknown key, did you mean origin.vault.tls.caCert?
/origin/vault/approle = { "role_id": "r" } -> origin.vault.token and origin.vault.approle.role_id: two ways to log in to one Vault, keep one
/origin/vault/address = null -> origin.vault.address: is missing, give it in the config file, as VSYNC_ORIGIN_VAULT_ADDRESS or --origin.vault.address
/origin/consul = null -> origin: no place for its sync info, give origin.consul.address or origin.file.path
/origin/file = { "path": "f" } -> origin.consul.address and origin.file.path: two places for one sync info, keep one
/destination/mounts = [] -> destination.mounts: must list a data path; leave it out to take the origin's
/destinations = [{}] -> destination and destinations.0: write either the object destination or the list destinations
"#;

#[test]
fn every_mistake_names_the_key_and_what_to_do_and_contacts_nobody() {
    let address = Untouched::new();
    let sound = sound_config(&address.address());
    for line in MISTAKES.trim().lines() {
        let (place, message) = line.split_once(" -> ").expect("a row");
        let (pointer, value) = place.split_once(" = ").expect("a row");
        let value = serde_json::from_str(value).expect("JSON");
        let mut config = sound.clone();
        put(&mut config, pointer, value);
        let output = Vsync::new(&config).args(["sync", "--once"]).run();
        let line = refusal(&output);
        assert!(line.contains(message), "{pointer}: {line}\nnot: {message}");
        output.expect_nowhere("hvs.MARK");
    }
    address.expect_untouched();
}

#[test]
fn destinations_need_names_and_places_of_their_own() {
    let address = Untouched::new();
    let sound = sound_config(&address.address());
    let two = |first: Value, second: Value| {
        let mut config = sound.clone();
        let destination = config
            .as_object_mut()
            .and_then(|config| config.remove("destination"))
            .expect("one");
        let mut list = [destination.clone(), destination];
        for (one, keys) in list.iter_mut().zip([first, second]) {
            one.as_object_mut()
                .expect("an object")
                .extend(keys.as_object().expect("an object").clone());
        }
        config["destinations"] = json!(list);
        refusal(&Vsync::new(&config).args(["--once"]).run())
    };
    let line = two(json!({ "syncPath": "a" }), json!({ "syncPath": "b" }));
    let names = "destinations.0.name and destinations.1.name: destinations need distinct names, give each its own";
    assert_eq!(line, names);
    let line = two(json!({ "name": "a" }), json!({ "name": "b" }));
    assert_eq!(
        line,
        "destinations.0 and destinations.1: two destinations on one store and sync path, give each its own syncPath"
    );
    address.expect_untouched();
}

#[test]
fn a_command_that_lacks_its_role_says_so() {
    let address = Untouched::new();
    let sound = sound_config(&address.address());
    for (gone, arguments, message) in [
        ("/origin/mounts", &["origin", "--once"][..], "origin.mounts: is missing"),
        (
            "/destination",
            &["destination", "--once"],
            "destinations: none is configured, so there is nothing to do",
        ),
        (
            "/origin",
            &["destination", "--once"],
            "origin.vault.address: is missing",
        ),
    ] {
        let mut config = sound.clone();
        put(&mut config, gone, Value::Null);
        let line = refusal(&Vsync::new(&config).args(arguments).run());
        assert!(line.contains(message), "{gone}: {line}");
    }
    let line = refusal(&Vsync::without_config().args(["--once"]).run());
    assert!(
        line.ends_with("no config file was found at vsync.json or /etc/vsync/vsync.json"),
        "{line}"
    );
    address.expect_untouched();
}

#[test]
fn a_file_that_is_no_json_is_told_what_to_be() {
    let instead = "is no longer read, write the same keys as JSON: {\"origin\": {...}}";
    for (name, text, message) in [
        (
            "v.yaml",
            "origin:\n  vault: {}\n",
            format!("config file v.yaml: YAML {instead}"),
        ),
        (
            "v.hcl",
            "origin \"x\" {\n}\n",
            format!("config file v.hcl: HCL {instead}"),
        ),
        (
            "v.conf",
            "origin:\n  mounts: [hvs.MARK]\n",
            format!("config file v.conf: is not JSON but looks like YAML or HCL, which {instead}"),
        ),
        (
            "v.json",
            "{\"a\": hvs.MARK}",
            "config file v.json: is not JSON: the mistake is at line 1, column 7".to_owned(),
        ),
        (
            "v.json",
            "[1]",
            "config file v.json: must hold one JSON object, found a list".to_owned(),
        ),
        ("v.json", "", "config file v.json: is empty".to_owned()),
        (
            "v.json",
            "{\"name\": \"a\", \"name\": \"b\"}",
            "config file v.json: has the key name twice".to_owned(),
        ),
    ] {
        let vsync = Vsync::without_config();
        vsync.folder().write(name, text);
        let output = vsync.args(["--once", "-c", name]).run();
        assert_eq!(refusal(&output), message, "{text}");
        output.expect_nowhere("hvs.MARK");
    }
}
