//! What only a folder has: permissions, a disk that is full, something else in its place, and a lock.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::common::info::{Info, Pair, expect_error};
use crate::common::proxy::{Action, Proxy};
use crate::common::{vsync_binary, wait};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything below a folder, and the folder itself.
fn all_below(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    found.push(path.to_owned());
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            all_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[test]
fn folders_and_files_are_their_owners_alone_whatever_the_umask() {
    let pair = Pair::on_folder();
    let script = "umask 0; exec \"$0\" sync --once";
    for _ in 0..2 {
        pair.fill(&["a", "b"]);
        pair.vsync
            .args(["-c".as_ref(), script.as_ref(), vsync_binary().as_os_str()])
            .binary(Path::new("/bin/sh"))
            .run()
            .expect_code(0);
        let mut found = Vec::new();
        all_below(&pair.vsync.folder().join("sync"), &mut found);
        assert_eq!(
            found.len(),
            4 + 2 * 23,
            "20 buckets, index, meta and lock of each end: {found:?}"
        );
        for path in found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
    }
}

#[test]
fn something_else_in_the_folders_place_is_named() {
    type Prepare = fn(&Path);
    let cases: [(&str, &str, Prepare); 6] = [
        ("sync", "sync/vsync/origin", |root| {
            std::fs::write(root.join("sync"), "a file").unwrap()
        }),
        ("sync", "sync/vsync/origin", |root| {
            std::fs::create_dir(root.join("sync")).unwrap();
            std::fs::write(root.join("sync/vsync"), "a file").unwrap();
        }),
        ("sync", "sync/vsync/origin", |root| {
            symlink("nowhere", root.join("sync")).unwrap()
        }),
        ("sync", "sync/vsync/origin", |root| {
            symlink("sync", root.join("sync")).unwrap()
        }),
        ("sync", "sync/vsync/origin/index", |root| {
            std::fs::create_dir_all(root.join("sync/vsync/origin/index")).unwrap();
        }),
        // Nobody can make a folder there, an administrator neither: as on a disk that is read-only.
        ("/proc/vsync", "/proc/vsync/vsync/origin", |_| {}),
    ];
    for (path, named, prepare) in cases {
        let mut pair = Pair::on_folder();
        pair.set("/origin/file", "path", json!(path));
        pair.fill(&["a"]);
        prepare(pair.vsync.folder());
        let output = pair.origin_cycle("failed");
        expect_error(&output, "origin", None, &[named]);
        output.expect(
            !pair.vsync.folder().join("nowhere").exists(),
            "nothing is made elsewhere",
        );
    }
}

#[test]
fn the_folder_may_be_a_symlink_to_one() {
    let pair = Pair::on_folder();
    std::fs::create_dir(pair.vsync.folder().join("real")).unwrap();
    symlink("real", pair.vsync.folder().join("sync")).unwrap();
    pair.fill(&["a"]);
    pair.once("sync", &[]).expect_code(0);
    pair.expect_origin(&["a"]);
    assert!(pair.vsync.folder().join("real/vsync/origin/index").is_file());
}

/// A temporary file that leads to `/dev/full` is a disk that is full when its turn comes.
#[test]
fn a_full_disk_fails_the_cycle_and_leaves_the_old_state() {
    let pair = Pair::on_folder();
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    let Info::Folder(root) = &pair.info else {
        panic!("no folder");
    };
    let bucket = Info::bucket_of("origin", &pair.path("a"), 20);
    for key in ["origin/meta", &bucket, "origin/index"] {
        let index = pair.info.get("origin/index");
        let value = pair.info.get(key);
        pair.fill(&["a"]);
        let temporary = root.join(format!("{key}.new"));
        symlink("/dev/full", &temporary).unwrap();
        let output = pair.origin_cycle("failed");
        expect_error(&output, "origin", None, &["write", key, "No space left on device"]);
        assert_eq!(pair.info.get("origin/index"), index, "{key}");
        assert_eq!(pair.info.get(key), value, "{key}");
        assert!(
            std::fs::symlink_metadata(&temporary).is_err(),
            "half a value was left in the way"
        );
        pair.origin_cycle("saved");
        pair.expect_origin(&["a", "b"]);
    }
}

#[test]
fn a_second_run_waits_for_the_lock_and_names_its_holder() {
    let mut pair = Pair::on_folder().plain();
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    let direct = pair.config["origin"]["vault"]["address"].clone();
    let proxy = Proxy::start(direct.as_str().unwrap());
    let held = proxy.when(format!("GET /v1/{}", pair.origin.metadata_path("a")), Action::Hold);

    // Killed: the lock dies with its process. Released: the one that waits goes on.
    for (held_before, is_killed) in [true, false].into_iter().enumerate() {
        pair.set("/origin/vault", "address", json!(proxy.address()));
        let first = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
        held.wait_until_held(held_before + 1);
        pair.set("/origin/vault", "address", direct.clone());
        pair.set("/origin", "timeout", json!("1s"));
        let stamps = pair.info.stamps("origin/");
        let output = pair.origin_cycle("failed");
        let holder = format!("process {}", first.id());
        expect_error(&output, "origin", None, &["sync/vsync/origin/lock", "held by", &holder]);
        let in_time = (1..5).contains(&output.elapsed.as_secs());
        output.expect(in_time, "it waited for its time limit, and no longer");
        assert_eq!(pair.info.stamps("origin/"), stamps);

        pair.set("/origin", "timeout", json!("30s"));
        let waiting = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
        waiting.wait_for_stderr("data paths");
        wait::stays("it waits for the lock", Duration::from_millis(200), || {
            waiting.is_running()
        });
        if is_killed {
            first.kill();
            first.wait_exit(wait::SOON).expect_code(137);
        } else {
            held.release();
            first.wait_exit(wait::SOON).expect_code(0);
        }
        waiting.wait_exit(wait::SOON).expect_code(0);
    }
    pair.expect_origin(&["a", "b"]);
}

/// The two ends have a lock each: a destination's long cycle does not keep the origin from its own.
#[test]
fn the_roles_do_not_lock_each_other_out() {
    let mut pair = Pair::on_folder();
    pair.fill(&["a"]);
    pair.once("sync", &[]).expect_code(0);
    let proxy = Proxy::start(&pair.origin.vault.address);
    let direct = pair.config["origin"]["vault"]["address"].clone();
    pair.set("/origin/vault", "address", json!(proxy.address()));
    pair.origin.put("a", json!({"now": 2}));
    pair.origin_cycle("saved");
    let held = proxy.when(format!("GET /v1/{}", pair.origin.data_path("a")), Action::Hold);
    let destination = pair.vsync.args(["destination", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    pair.set("/origin/vault", "address", direct);
    pair.origin_cycle("unchanged");
    held.release();
    destination.wait_exit(wait::SOON).expect_code(0);
}
