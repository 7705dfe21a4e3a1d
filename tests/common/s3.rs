//! A store of the tests' own that speaks S3 and checks signatures, users and policies: moto.
//!
//! [`shared`] is started once and used by all tests of a binary, each in a bucket or below a prefix of its own. Its users are
//! made before it begins to check who asks, since nothing here can sign a request. Lists come in small pages, so that most are
//! more than one. Its clients close every connection after one answer, as it does.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Request};
use super::process::{Launch, Process, free_ports};
use super::{Folder, s3_binary, unique_for_test, wait};

/// How long it may take to start: Python reads some hundred files.
const LIMIT: Duration = Duration::from_secs(60);

/// How many keys and folders are on one page of a list.
pub const PAGE: usize = 20;

/// The bucket for tests that have a prefix.
pub const BUCKET: &str = "vsync-shared";

/// How many buckets there are for one test each.
const BUCKETS: usize = 3;

/// What a user signs with.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The access key id.
    pub id: String,
    /// The secret key.
    pub secret: String,
    /// The session token, of temporary keys.
    pub token: Option<String>,
}

/// The running store.
pub struct S3Server {
    _process: Process,
    /// `http://127.0.0.1:port`
    pub address: String,
    /// May do everything.
    pub owner: Keys,
    /// May do everything as well, for an hour.
    pub temporary: Keys,
    /// May read objects and lists.
    pub reader: Keys,
    /// May read, write and delete objects, but no lists.
    pub blind: Keys,
    _folder: Folder,
}

/// The shared store.
pub fn shared() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(S3Server::launch)
}

/// A prefix in [`BUCKET`] that no other test has, with its final slash.
pub fn fresh_prefix() -> String {
    format!("{}/", unique_for_test())
}

/// A bucket that no other test has: there are [`BUCKETS`] of them, with numbers from 0.
pub fn bucket(number: usize) -> String {
    assert!(number < BUCKETS, "there are {BUCKETS} buckets");
    format!("vsync-{number}")
}

impl S3Server {
    fn launch() -> S3Server {
        let folder = Folder::new();
        let [port] = free_ports();
        let process = Launch::new(s3_binary(), &folder)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("HOME", folder.as_os_str())
            .env("MOTO_S3_DEFAULT_MAX_KEYS", PAGE.to_string())
            .sweep(&folder)
            .start();
        let address = format!("http://127.0.0.1:{port}");
        wait::until_or_log(&format!("{address} answers"), LIMIT, process.log(), || {
            process.ensure_running();
            send(&address, "GET", "/moto-api/", &[], "")
        });
        for name in (0..BUCKETS).map(bucket).chain([BUCKET.to_owned()]) {
            ask(&address, "PUT", &format!("/{name}"), &[], "");
        }
        let objects = json!(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]);
        let server = S3Server {
            owner: user(&address, "owner", &json!("s3:*")),
            temporary: temporary(&address, &json!("s3:*")),
            reader: user(&address, "reader", &json!(["s3:GetObject", "s3:ListBucket"])),
            blind: user(&address, "blind", &objects),
            address,
            _process: process,
            _folder: folder,
        };
        // From the next request on it checks signatures and policies.
        ask(&server.address, "POST", "/moto-api/reset-auth", &[TEXT], "0");
        server
    }
}

const TEXT: (&str, &str) = ("Content-Type", "text/plain");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Makes a user with that policy.
fn user(address: &str, name: &str, actions: &Value) -> Keys {
    iam(address, &format!("Action=CreateUser&UserName={name}"));
    let policy = http::encode(&allow(actions, "Resource", &json!("*")));
    iam(
        address,
        &format!("Action=PutUserPolicy&UserName={name}&PolicyName=own&PolicyDocument={policy}"),
    );
    keys(&iam(address, &format!("Action=CreateAccessKey&UserName={name}")))
}

/// Makes a role with that policy, and keys for an hour of it.
fn temporary(address: &str, actions: &Value) -> Keys {
    let trust = http::encode(&allow(&json!("sts:AssumeRole"), "Principal", &json!({ "AWS": "*" })));
    let role = iam(
        address,
        &format!("Action=CreateRole&RoleName=role&AssumeRolePolicyDocument={trust}"),
    );
    let policy = http::encode(&allow(actions, "Resource", &json!("*")));
    iam(
        address,
        &format!("Action=PutRolePolicy&RoleName=role&PolicyName=own&PolicyDocument={policy}"),
    );
    let arn = http::encode(&element(&role, "Arn").expect("a role"));
    let assume = format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=vsync&RoleArn={arn}");
    keys(&form(address, "sts", &assume))
}

fn allow(actions: &Value, whom: &str, subject: &Value) -> String {
    let statement = json!({ "Effect": "Allow", "Action": actions, whom: subject });
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

fn keys(answer: &str) -> Keys {
    Keys {
        id: element(answer, "AccessKeyId").expect("an access key id"),
        secret: element(answer, "SecretAccessKey").expect("a secret key"),
        token: element(answer, "SessionToken"),
    }
}

/// The text of the first such element.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
}

fn iam(address: &str, query: &str) -> String {
    form(address, "iam", &format!("{query}&Version=2010-05-08"))
}

fn form(address: &str, service: &str, body: &str) -> String {
    // Which service is meant stands in the signature, which is not checked yet.
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=none/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    ask(address, "POST", "/", &[FORM, ("Authorization", &authorization)], body)
}

fn ask(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    send(address, method, target, headers, body).expect("an answer")
}

fn send(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<String, String> {
    let request = Request {
        method,
        target,
        headers,
        body: (method != "GET").then_some(body.as_bytes()),
    };
    let answer = http::send(address, &request)?;
    match answer.status {
        200 => Ok(answer.text()),
        status => Err(format!("{method} {target}: {status} {}", answer.text())),
    }
}
