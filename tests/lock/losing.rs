//! A lock that is lost: the cycle fails, nothing is saved by the loser, and it stands by again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Rivals, TAKEOVER, for_each_role};
use crate::common::consul::{self, operations};
use crate::common::info::{Info, Pair, expect_error, expect_result};
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::wait;
use crate::ends::{expect_prompt_end, wait_until_held};

/// The session ends while a save is on its way, which Consul gets only afterwards.
#[test]
fn a_lock_lost_in_mid_cycle_fails_it_and_nothing_is_saved_by_the_loser() {
    for_each_role(|role| {
        let rivals = Rivals::new(role);
        let daemon = rivals.first();
        daemon.wait_for_report(0, |report| report["result"] == "saved");
        let before = rivals.index();
        let held = rivals.proxies[0].when_first(1, "PUT /v1/txn? ", Action::Hold);
        rivals.change(2);
        wait_until_held(&daemon, &held);
        let session = consul::shared().holder(&rivals.lock()).expect("a holder");
        consul::shared().destroy_session(&session);
        held.release();
        let failed = daemon.wait_for_report(0, |report| report["result"] == "failed");
        let message = failed["errors"][0]["message"].as_str().unwrap();
        let named = format!("the lock {} in Consul http", rivals.lock());
        assert!(message.contains(&named) && message.contains("was lost"), "{failed}");
        assert_eq!(failed["errors"][0]["level"], "warn", "{failed}");
        assert_eq!(rivals.index(), before);
        daemon.wait_for_stderr("no cycle runs until it is taken again");
        // It comes back by itself, under another session.
        daemon.wait("the next save", || (rivals.index() != before).then_some(()));
        let saves = rivals.saves(0);
        assert_ne!(saves.last().unwrap().1, session);
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    });
}

/// anything yet: the check of the session is all that stands in its way.
#[test]
fn the_late_save_of_a_holder_that_was_paused_is_refused() {
    let rivals = Rivals::new("origin");
    let (first, second) = rivals.both();
    let before = rivals.index();
    let late = rivals.proxies[0].when_first(1, "PUT /v1/txn? ", Action::Hold);
    let newer = rivals.proxies[1].when("PUT /v1/txn? ", Action::Hold);
    rivals.change(2);
    wait_until_held(&first, &late);
    first.signal("STOP");
    wait::until("the other one works", TAKEOVER, || newer.waiting() > 0);
    late.release();
    wait::stays("nothing is saved", Duration::from_secs(1), || rivals.index() == before);
    first.signal("CONT");
    let failed = first.wait_for_report(0, |report| report["result"] == "failed");
    assert!(failed["errors"].to_string().contains("was lost"), "{failed}");
    first.wait_for_stderr("standing by: the lock ");
    newer.release();
    rivals.wait_for_save(&second, wait::SOON);
    assert_ne!(rivals.index(), before);
    for daemon in [first, second] {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}

/// It is paused in the middle of its deletes. The other one writes the secrets again, since the origin has them again; of
/// what the paused one had in mind nothing may reach a Vault then, whichever of its threads wakes first.
#[test]
fn a_destination_that_was_paused_among_its_deletes_sends_no_more_of_them() {
    let mut rivals = Rivals::new("destination");
    let keys: Vec<String> = (0..10).map(|n| format!("gone{n}")).collect();
    rivals.pair.fill(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    rivals.pair.origin_cycle("saved");
    let pair = &mut rivals.pair;
    let proxies = [&pair.origin, &pair.destination].map(|mount| Proxy::start(&mount.vault.address));
    pair.set("/origin/vault", "address", json!(proxies[0].address()));
    pair.set("/destinations/0/vault", "address", json!(proxies[1].address()));
    pair.set("/destinations/0", "numWorkers", json!(2));
    let (first, second) = rivals.both();
    let held = proxies[1].when("DELETE ", Action::HoldAnswer);
    keys.iter().for_each(|key| rivals.pair.origin.delete(key));
    rivals.pair.origin_cycle("saved");
    first.wait("two deletes are held", || (held.waiting() == 2).then_some(()));
    first.signal("STOP");
    keys.iter().for_each(|key| rivals.pair.origin.undelete(key, &[1]));
    rivals.pair.origin_cycle("saved");
    rivals.wait_for_save(&second, TAKEOVER);
    let of_secrets = |line: &str| line.contains("/data/") || line.contains("/metadata/");
    let sent = || proxies.each_ref().map(|proxy| proxy.count(of_secrets));
    let before = sent();
    held.release();
    first.signal("CONT");
    first.wait_for_stderr("standing by: the lock ");
    assert_eq!(sent(), before, "requests of the one that was paused");
    let failed = first.wait_for_report(1, |report| report["result"] == "failed");
    assert!(failed["errors"].to_string().contains("was lost"), "{failed}");
    for key in &keys {
        assert!(rivals.pair.destination.get(key).is_some(), "{key} is deleted");
    }
    for daemon in [first, second] {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}

#[test]
fn a_lock_key_that_was_overwritten_stays_held_and_says_again_whose_it_is() {
    let rivals = Rivals::new("origin");
    let (first, second) = rivals.both();
    consul::shared().put(&rivals.lock(), "hvs.STRAYSECRET");
    first.wait_for_stderr("was overwritten by somebody else");
    wait::until("the holder's name is back", wait::SOON, || {
        consul::shared()
            .get_json(&rivals.lock())
            .is_some_and(|value| value["process"] == first.id())
    });
    rivals.change(2);
    first.wait_for_report(1, |report| report["result"] == "saved");
    assert!(second.reports().is_empty());
    for daemon in [first, second] {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0).expect_nowhere("hvs.STRAYSECRET");
    }
}

#[test]
fn a_holder_whose_lock_key_was_deleted_loses_it_at_once_and_takes_it_again() {
    let rivals = Rivals::new("origin");
    let daemon = rivals.first();
    daemon.wait_for_report(0, |report| report["result"] == "saved");
    let session = consul::shared().holder(&rivals.lock()).expect("a holder");
    consul::shared().delete(&rivals.lock());
    daemon.wait_for_stderr("was lost: its key was deleted");
    let next = daemon.wait("it is held again", || consul::shared().holder(&rivals.lock()));
    assert_ne!(next, session);
    let before = rivals.index();
    rivals.change(2);
    daemon.wait("it is saved", || (rivals.index() != before).then_some(()));
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

/// have noticed. This one can't.
#[test]
fn a_standby_does_not_hurry_when_the_lock_key_was_deleted() {
    let rivals = Rivals::new("origin");
    let (first, second) = rivals.both();
    first.signal("STOP");
    consul::shared().delete(&rivals.lock());
    let since = Instant::now();
    wait::until("the standby holds it", wait::SOON, || {
        consul::shared().holder(&rivals.lock())
    });
    assert!(since.elapsed() > Duration::from_millis(2500), "{:?}", since.elapsed());
    first.signal("CONT");
    first.wait_for_stderr("standing by: the lock ");
    assert!(
        first
            .stderr()
            .contains(&format!("is held by process {} on ", second.id()))
    );
    for daemon in [first, second] {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}

/// Consul is asked anew long before the lock would be another's; when it stays silent, the holder gives up by itself.
#[test]
fn a_lock_that_can_not_be_renewed_is_given_up_before_another_can_have_it() {
    let answers = [
        (
            "PUT /v1/session/renew/",
            Action::html(500),
            8..13,
            "could not be renewed in time",
        ),
        ("", Action::Hang, 7..13, "it could not be renewed in time"),
        (
            "PUT /v1/session/renew/",
            Action::Answer(Reply::new(404, "text/plain", "Session id 'x' not found")),
            0..6,
            "its session has ended",
        ),
    ];
    std::thread::scope(|threads| {
        for (line, action, seconds, why) in answers {
            threads.spawn(move || {
                let rivals = Rivals::new("origin");
                let daemon = rivals.first();
                daemon.wait_for_report(0, |report| report["result"] == "saved");
                let rule = rivals.proxies[0].when(line, action);
                let since = Instant::now();
                daemon.wait_for_stderr("was lost: it");
                let took = since.elapsed().as_secs();
                assert!(seconds.contains(&took), "{why} after {took} s");
                rule.release();
                rivals.change(2);
                let reports = daemon.reports().len();
                daemon.wait_for_report(reports, |report| report["result"] == "saved");
                daemon.signal("TERM");
                expect_prompt_end(daemon, 0).expect_stderr(why);
            });
        }
    });
}

/// A bucket that no transaction takes is written only after a look at the lock, and the index is not written without it.
#[test]
fn a_bucket_too_large_for_a_transaction_is_not_written_without_the_lock() {
    let mut rivals = Rivals::new("origin");
    rivals.pair.set("", "numBuckets", json!(1));
    let folders = vec!["f".repeat(150); 4].join("/");
    let names: Vec<String> = (0..620).map(|n| format!("{folders}/{n:03}")).collect();
    rivals.pair.fill(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let meta = format!(
        "PUT /v1/txn? check-session {} check-not-exists {} set {}",
        rivals.lock(),
        rivals.key("index"),
        rivals.key("meta")
    );
    let held = rivals.proxies[0].when_first(1, meta, Action::HoldAnswer);
    let run = rivals.pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    wait_until_held(&run, &held);
    let session = consul::shared().holder(&rivals.lock()).expect("a holder");
    consul::shared().destroy_session(&session);
    held.release();
    let output = run.wait_exit(wait::SOON);
    expect_result(&output, "origin", "failed");
    expect_error(&output, "origin", None, &["was lost"]);
    assert_eq!(rivals.index(), None);
    assert_eq!(consul::shared().get(&rivals.key("0")), None);
    rivals.pair.origin_cycle("saved");
    let plain = format!("PUT /v1/kv/{}?", rivals.key("0"));
    assert_eq!(rivals.proxies[0].count(plain), 1, "it was that large");
    let commit = rivals.saves(0).pop().expect("a commit").0;
    let verbs: Vec<String> = operations(&commit.body).into_iter().map(|(verb, ..)| verb).collect();
    assert_eq!(verbs, ["check-session", "check-not-exists", "cas"]);
}

#[test]
fn a_folders_lock_is_lost_with_its_file_and_the_next_writer_keeps_the_first_one_away() {
    let mut pair = Pair::on_folder();
    pair.set("/origin", "tick", json!("200ms"));
    pair.fill(&["a"]);
    let Info::Folder(folder) = &pair.info else {
        panic!("it is in a folder");
    };
    let start = || pair.vsync.args(["origin", "-o", "json"]).spawn();
    let first = start();
    first.wait_for_report(0, |report| report["result"] == "saved");
    // Whoever wants to start anew removes it all.
    first.signal("STOP");
    std::fs::remove_dir_all(folder).expect("the sync info");
    let second = start();
    second.wait_for_report(0, |report| report["result"] == "saved");
    first.signal("CONT");
    first.wait_for_stderr("was lost: somebody has removed or replaced the file");
    first.wait_for_stderr(&format!("lock is held by process {}", second.id()));
    let reports = first.reports().len();
    second.signal("TERM");
    expect_prompt_end(second, 0);
    let report = first.wait_for_report(reports, |_| true);
    assert_eq!(report["result"], "unchanged", "{report}");
    first.signal("TERM");
    let output = expect_prompt_end(first, 0);
    let saves = output.reports.iter().filter(|report| report["result"] == "saved");
    assert_eq!(saves.count(), 1);
    pair.expect_origin(&["a"]);
}
