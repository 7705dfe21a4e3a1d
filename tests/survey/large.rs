//! A folder of more names than the first page holds: it is read in parts, whatever comes and goes in it meanwhile.

use std::collections::BTreeSet;

use serde_json::json;

use super::{asked, content, counted, plain_info, proxied};
use crate::common::info::{Pair, expect_counts};
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::unique_for_test;
use crate::common::wait;
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

fn delete(pair: &Pair, keys: &[String]) {
    at_once(keys, |key| pair.origin.delete_metadata(key));
}

fn refs(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

#[test]
fn it_is_found_whole_by_few_requests() {
    let (mut pair, proxy, keys) = large();
    let output = pair.origin_cycle("saved");
    expect_counts(&output, "origin", &[("paths", keys.len() as u64), ("failed", 0)]);
    pair.expect_origin(&refs(&keys));
    // The mount, the two folders inside; the first page and the other 1,302 names in two parts, divided by a listing.
    assert_eq!(counted(&pair, &proxy), [3 + 3, 1, 0], "{:#?}", asked(&pair, &proxy));
    assert_eq!(content(&pair.info), plain_info(&pair));

    let stamps = pair.info.stamps("origin/");
    let parts = |line: &str| line.contains("/detailed-metadata/big/?") && line.contains("after=");
    // A part that is cut fails the cycle; asked for again it is whole.
    for action in [
        Action::Cut(9000),
        Action::CutShort(1),
        Action::errors(503, &["Vault is sealed"]),
    ] {
        let rule = proxy.when(parts, action.clone());
        pair.origin_cycle("failed");
        rule.release();
        assert_eq!(pair.info.stamps("origin/"), stamps, "{action:?}");
    }
    pair.set("/origin/vault", "maxRetries", json!(1));
    let rule = proxy.when_first(2, parts, Action::CutShort(100));
    pair.origin_cycle("unchanged");
    assert_eq!(rule.seen(), 2);

    // One that can't be had is listed and looked at, no more than that part is, and each secret once.
    for action in [Action::errors(404, &[]), Action::errors(403, &["permission denied"])] {
        proxy.forget();
        let rule = proxy.when(parts, action.clone());
        pair.origin_cycle("unchanged");
        rule.release();
        assert_eq!(looked_at_once(&pair, &proxy), 1300, "{action:?}");
    }
    // The same for one that is not what was asked for: the first page again.
    let target = format!("/v1/{}?limit=1000", pair.origin.survey_path("big/"));
    let first = pair.origin.vault.send("LIST", &target, &[], None);
    let first = Reply::json(200, &first.unwrap().json()).header("Date", "Sat, 21 Nov 2026 10:00:05 GMT");
    proxy.forget();
    let line = survey_of(&pair, "big/?limit=1000&after=");
    let rule = proxy.when(line, Action::Answer(first));
    pair.origin_cycle("unchanged");
    assert_eq!((rule.seen(), looked_at_once(&pair, &proxy)), (1, 998));
    rule.release();

    hide(&mut pair, "15");
    proxy.forget();
    pair.origin_cycle("saved");
    let shown: Vec<String> = keys.iter().filter(|key| !key.starts_with("big/15")).cloned().collect();
    pair.expect_origin(&refs(&shown));
    assert_eq!(looked_at_once(&pair, &proxy), 0);

    allow_a_thousand_at_once(&mut pair);
    proxy.forget();
    pair.origin_cycle("saved");
    pair.expect_origin(&refs(&keys));
    assert_eq!(counted(&pair, &proxy), [3 + 3, 1, 0], "{:#?}", asked(&pair, &proxy));
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

#[test]
fn what_comes_and_goes_meanwhile_takes_nothing_else_with_it() {
    let (pair, proxy, mut keys) = large();
    let first = proxy.when_first(1, survey_of(&pair, "big/?limit=1000"), Action::HoldAnswer);
    let parts = |line: &str| line.contains("/detailed-metadata/big/?") && line.contains("after=");
    let parts = proxy.when(parts, Action::Hold);
    let cycle = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    // Between the first page and the names: around the page's end, and at the folder's.
    cycle.wait("the first page is held", || (first.waiting() > 0).then_some(()));
    let mut gone: Vec<String> = (995..1005).chain(2295..NAMES).map(key).collect();
    delete(&pair, &gone);
    let early: Vec<String> = (0..50)
        .flat_map(|n| [format!("big/0999x{n:02}"), format!("big/9{n:02}")])
        .collect();
    write(&pair, &early);
    first.release();
    // Between the names and the parts: more than half of one goes, where it ends too, and the other doubles.
    cycle.wait("both parts are held", || (parts.waiting() == 2).then_some(()));
    let later: Vec<String> = (1300..1902).chain(1990..2010).map(key).collect();
    delete(&pair, &later);
    gone.extend(later);
    let late: Vec<String> = (0..1200).map(|n| format!("big/2100x{n:04}")).collect();
    write(&pair, &late);
    parts.release();
    let output = cycle.wait_exit(wait::SOON);
    output.expect_code(0);
    expect_counts(&output, "origin", &[("failed", 0)]);

    let found = pair.info.sound("origin", crate::common::info::BUCKETS);
    let gone: BTreeSet<String> = gone.into_iter().collect();
    keys.retain(|key| !gone.contains(key));
    let missing: Vec<&String> = keys.iter().filter(|key| !found.contains_key(&pair.path(key))).collect();
    assert!(
        missing.is_empty(),
        "{} that were there all the time: {missing:?}",
        missing.len()
    );
    let known = [&keys[..], &early, &late].concat();
    let known: BTreeSet<String> = known.iter().chain(&gone).map(|key| pair.path(key)).collect();
    assert!(found.keys().all(|path| known.contains(path)), "nothing is made up");
    for key in &late {
        assert!(
            found.contains_key(&pair.path(key)),
            "{key} came before its part was read"
        );
    }

    pair.origin_cycle("saved");
    pair.expect_origin(&refs(&[keys, early, late].concat()));
}
