//! A folder of many names: it is found whole by one request, whatever a policy hides of it or cuts short.

use std::collections::BTreeSet;

use serde_json::json;

use super::{asked, content, counted, plain_info, proxied};
use crate::common::info::{Pair, expect_counts};
use crate::common::proxy::{Action, Proxy};
use crate::common::unique_for_test;
use crate::origin_rules::survey_of;

const NAMES: usize = 2300;

/// Ends of names, such as a page or a part may end with too.
const ENDS: [&str; 9] = ["", " ", "+", "%2F", "?x=1", "#", "&after=b", "ü", ";"];

/// The name of that number; they sort by it.
fn name(n: usize) -> String {
    format!("{n:04}{}", ENDS[n % ENDS.len()])
}

fn key(n: usize) -> String {
    format!("big/{}", name(n))
}

/// Does it for all of these at once.
fn at_once<T: Sync>(all: &[T], each: impl Fn(&T) + Sync) {
    std::thread::scope(|threads| {
        for part in all.chunks(all.len().div_ceil(8).max(1)) {
            let each = &each;
            threads.spawn(move || part.iter().for_each(each));
        }
    });
}

#[track_caller]
fn large() -> (Pair, Proxy, Vec<String>) {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.set("/origin", "numWorkers", json!(8));
    let keys: Vec<String> = (0..NAMES).map(key).collect();
    write(&pair, &keys);
    // A folder among the names, and one of a secret's name.
    pair.fill(&["big/1500/x", "big/1009+/y"]);
    let keys = keys.into_iter().chain(["big/1500/x", "big/1009+/y"].map(str::to_owned));
    let keys = keys.collect();
    (pair, proxy, keys)
}

fn write(pair: &Pair, keys: &[String]) {
    at_once(keys, |key| _ = pair.origin.put(key, json!({})));
}

fn refs(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

#[test]
fn it_is_found_whole_by_one_request() {
    let (mut pair, proxy, keys) = large();
    let output = pair.origin_cycle("saved");
    expect_counts(&output, "origin", &[("paths", keys.len() as u64), ("failed", 0)]);
    pair.expect_origin(&refs(&keys));
    // The mount, the folder, and the two folders inside.
    assert_eq!(counted(&pair, &proxy), [4, 0, 0], "{:#?}", asked(&pair, &proxy));
    assert_eq!(content(&pair.info), plain_info(&pair));

    let stamps = pair.info.stamps("origin/");
    // One that is cut fails the cycle; asked for again it is whole.
    for action in [
        Action::Cut(9000),
        Action::CutShort(1),
        Action::errors(503, &["Vault is sealed"]),
    ] {
        let rule = proxy.when(survey_of(&pair, "big/?"), action.clone());
        pair.origin_cycle("failed");
        rule.release();
        assert_eq!(pair.info.stamps("origin/"), stamps, "{action:?}");
    }
    pair.set("/origin/vault", "maxRetries", json!(1));
    let rule = proxy.when_first(1, survey_of(&pair, "big/?"), Action::CutShort(100));
    pair.origin_cycle("unchanged");
    assert_eq!(rule.seen(), 1);

    // One that can't be had is listed and looked at, each secret once.
    for action in [Action::errors(404, &[]), Action::errors(403, &["permission denied"])] {
        proxy.forget();
        let rule = proxy.when(survey_of(&pair, "big/?"), action.clone());
        pair.origin_cycle("unchanged");
        rule.release();
        assert_eq!(looked_at_once(&pair, &proxy), NAMES, "{action:?}");
    }

    // Of pages these names would be counted, and not shown.
    hide(&mut pair, "0");
    proxy.forget();
    pair.origin_cycle("saved");
    let shown: Vec<String> = keys.iter().filter(|key| !key.starts_with("big/0")).cloned().collect();
    pair.expect_origin(&refs(&shown));
    assert_eq!(looked_at_once(&pair, &proxy), 0);

    // Who may only have pages is read plainly there.
    allow_a_thousand_at_once(&mut pair);
    proxy.forget();
    pair.origin_cycle("saved");
    pair.expect_origin(&refs(&keys));
    assert_eq!(looked_at_once(&pair, &proxy), keys.len());
}

/// OpenBao can hide from a listing what the token may not read, and counts it all the same: pages are short then.
#[track_caller]
fn hide(pair: &mut Pair, hidden: &str) {
    let policy = unique_for_test();
    let filter = format!(
        "list_scan_response_keys_filter_path = \"{}data/big/{{{{ .key }}}}\"",
        pair.origin
    );
    let rules = format!(
        "path \"{0}metadata/*\" {{\n capabilities = [\"read\", \"list\"] }}\n\
         path \"{0}metadata/big/\" {{\n capabilities = [\"list\"]\n {filter}\n }}\n\
         path \"{0}detailed-metadata/*\" {{\n capabilities = [\"list\"]\n }}\n\
         path \"{0}detailed-metadata/big/\" {{\n capabilities = [\"list\"]\n {filter}\n }}\n\
         path \"{0}data/*\" {{ capabilities = [\"read\", \"list\"] }}\n\
         path \"{0}data/big/{hidden}*\" {{ capabilities = [\"deny\"] }}",
        pair.origin
    );
    pair.origin.vault.policy(&policy, &rules);
    let token = pair.origin.vault.create_token(&[&policy], "10m", json!({}));
    pair.set("/origin/vault", "token", json!(token));
}

/// How many secrets were looked at by themselves, none of them twice.
#[track_caller]
fn looked_at_once(pair: &Pair, proxy: &Proxy) -> usize {
    let [_, _, reads] = asked(pair, proxy);
    let different: BTreeSet<&String> = reads.iter().collect();
    assert_eq!(different.len(), reads.len(), "none of them is looked at twice");
    reads.len()
}

/// Gives the origin's token a policy that allows pages as large as they are, and no larger ones.
#[track_caller]
fn allow_a_thousand_at_once(pair: &mut Pair) {
    let policy = unique_for_test();
    let rules = format!(
        "path \"{0}metadata/*\" {{ capabilities = [\"read\", \"list\"] }}\n\
         path \"{0}detailed-metadata/*\" {{\n capabilities = [\"list\"]\n pagination_limit = 1000\n }}",
        pair.origin
    );
    pair.origin.vault.policy(&policy, &rules);
    let token = pair.origin.vault.create_token(&[&policy], "10m", json!({}));
    pair.set("/origin/vault", "token", json!(token));
}
