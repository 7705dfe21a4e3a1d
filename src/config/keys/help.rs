//! The table of keys as people read it.

use super::{KEYS, Key, Place, Section};
use crate::config::kind::Kind;

/// The keys as `vsync help config` shows them.
pub fn help() -> String {
    let mut text = String::from(HELP_INTRODUCTION);
    for (section, title, place) in [
        (Section::Top, "Top level", Place::Top),
        (
            Section::End,
            "Under `origin`, and under each destination",
            Place::Origin,
        ),
        (
            Section::Destination,
            "Under each destination only",
            Place::Destination(Some(0)),
        ),
        (Section::Origin, "Under `origin` only", Place::Origin),
    ] {
        text.push_str(&format!("\n{title}:\n"));
        for key in KEYS.iter().filter(|key| key.section == section) {
            text.push_str(&key_help(place, key));
        }
    }
    text
}

const HELP_INTRODUCTION: &str = "\
Config keys. A value comes from, first wins: the flag --<key>, the environment, the config file, the default.

The config file is JSON: the file of --config, else ./vsync.json, else /etc/vsync/vsync.json. Dots in the
names below are nested objects. Destinations are a list `destinations` (destinations.0.tick is
VSYNC_DESTINATIONS_0_TICK) or a single object `destination` (destination.tick, VSYNC_DESTINATION_TICK).
Keys that hold a secret are not taken as flags. As a flag or in the environment a list is separated by
commas or is a JSON array; `transforms` and `notify.command` are always JSON arrays.

Exactly one way to log in is given for each end: vault.token, vault.tokenFile, vault.approle, vault.kubernetes,
vault.jwt, vault.cert or vault.userpass. VAULT_TOKEN and ~/.vault-token never apply by themselves. Exactly one of
consul and file keeps an end's sync info.
";

fn key_help(place: Place, key: &Key) -> String {
    let secret = if key.kind.is_secret() { " [secret]" } else { "" };
    let default = match key.default {
        "" => String::new(),
        default => format!(" (default {default})"),
    };
    let heading = format!("  {}{secret}", key.name);
    let variable = place.variable(key.name);
    let help = key.help;
    let expects = match key.kind {
        Kind::Text => String::new(),
        _ => format!("      {}\n", key.kind.expects()),
    };
    format!("{heading:<36}{variable}\n      {help}{default}\n{expects}")
}
