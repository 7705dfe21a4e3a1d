//! The static binary needs nothing of the system it runs on.
//!
//! It is run in a root folder that holds the binary, its config and `/etc/hosts`, and nothing else: no
//! loader, no C library, no name service modules. Looking up a name is what static binaries fail at.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::process::{Launch, shell_code};
use crate::common::proxy::Proxy;
use crate::common::vsync::two_vaults;
use crate::common::{Folder, repository, vault_server, wait};

/// The binary that `make static` made; `make test` has just done so and says where it is.
fn static_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("VSYNC_TEST_STATIC").filter(|path| !path.is_empty()) {
            return path.into();
        }
        let output = Command::new("make")
            .arg("static")
            .current_dir(repository())
            .output()
            .expect("make starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "make static: {}\n{errors}", output.status);
        repository().join("target/static/vsync")
    })
}

#[test]
fn the_static_binary_names_no_loader_and_no_library() {
    let output = Command::new("ldd").arg(static_binary()).output().expect("ldd starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // glibc's ldd says "statically linked" of a binary that can be loaded anywhere, the rest the other.
    let is_static = said.contains("statically linked") || said.contains("not a dynamic");
    assert!(is_static, "ldd {}: {said}", static_binary().display());
}

#[test]
fn the_static_binary_finds_a_host_by_name_in_an_empty_root() {
    let origin = vault_server::origin().fresh_kv2();
    let destination = vault_server::destination().fresh_kv2();
    let proxy = Proxy::start(&origin.vault.address);
    let named = origin.vault.at(&format!("http://vault.test:{}", proxy.port()));
    let config = two_vaults((&named, &origin), (&destination.vault, &destination), "/sync");

    let root = Folder::new();
    std::fs::copy(static_binary(), root.join("vsync")).expect("the binary is there");
    std::fs::create_dir(root.join("etc")).expect("the test's folder is writable");
    root.write("etc/hosts", "127.0.0.1 vault.test\n");
    root.write("vsync.json", config.to_string());

    let outside = Folder::new();
    let (stdout, stderr) = (outside.join("stdout"), outside.join("stderr"));
    let mut command = enter(&root);
    command.extend(["/vsync", "check", "-c", "/vsync.json"].map(str::to_owned));
    let (program, arguments) = command.split_first().expect("a program");
    let child = Launch::new(program, &outside)
        .args(arguments)
        .output_to(&stdout, &stderr)
        .start();
    let code = shell_code(child.wait_exit(wait::SOON));

    let said = [stdout, stderr]
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .concat();
    assert!(
        proxy.count("GET /v1/") > 0,
        "no request came to vault.test; exit code {code}:\n{said}"
    );
    for complaint in ["lookup address", "host not found", "not known", "name resolution"] {
        assert!(!said.contains(complaint), "exit code {code}:\n{said}");
    }
}

/// The command that runs another in `root`. Only root may change the root folder; anybody else becomes root
/// in a user namespace first. (`chroot` is not on an ordinary user's PATH everywhere, `unshare` is.)
fn enter(root: &Path) -> Vec<String> {
    let id = Command::new("id").arg("-u").output().expect("id starts").stdout;
    let mut command = vec!["unshare".to_owned(), format!("--root={}", root.display())];
    if id != b"0\n" {
        command.push("--map-root-user".to_owned());
    }
    command
}
