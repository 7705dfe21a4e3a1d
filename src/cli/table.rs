//! The commands and flags, and the help that is made of them.
//!
//! One table for each: what is not in here can neither be parsed nor be in a help text, and what is in here
//! is in both. Config keys are not repeated; they have a table of their own.

use super::Command;

/// One command of the table.
pub struct CommandRow {
    /// The word on the command line.
    pub name: &'static str,
    /// The command.
    pub command: Command,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What else its help says.
    pub details: &'static str,
}

/// One flag of the table.
pub struct Flag {
    /// Which one.
    pub id: FlagId,
    /// The name after `--`.
    pub long: &'static str,
    /// The letter after `-`.
    pub short: Option<char>,
    /// What its value is called; `None` for a flag without one.
    pub value: Option<&'static str>,
    /// The commands that it belongs to.
    pub commands: &'static [Command],
    /// What it does, in one line.
    pub help: &'static str,
}

/// The flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagId {
    /// `--config`
    Config,
    /// `--once`
    Once,
    /// `--dry-run`
    DryRun,
    /// `--output`
    Output,
    /// `--allow-mass-delete`
    AllowMassDelete,
    /// `--full`
    Full,
    /// `--prune`
    Prune,
    /// `--transforms`
    Transforms,
    /// `--repair`
    Repair,
    /// `--all`
    All,
    /// `--sample`
    Sample,
    /// `--version`
    Version,
    /// `--help`
    Help,
}

/// Every command of this version; the first is the default.
pub const COMMANDS: &[CommandRow] = &[
    CommandRow {
        name: "sync",
        command: Command::Sync,
        summary: "the origin's cycle, then every destination's (the default command)",
        details: "Runs whichever roles the config holds: an origin with mounts, and each destination. Without --once until \
                  it is\nstopped; then --full, --prune and --allow-mass-delete count for each role's first cycle only.",
    },
    CommandRow {
        name: "origin",
        command: Command::Origin,
        summary: "the origin role only",
        details: "Reads the origin Vault's metadata and keeps the origin's sync info up to date.",
    },
    CommandRow {
        name: "destination",
        command: Command::Destination,
        summary: "the destination roles only",
        details: "Compares each destination's sync info with the origin's and copies what differs.",
    },
    CommandRow {
        name: "check",
        command: Command::Check,
        summary: "run the startup checks and print each with its outcome",
        details: "Changes nothing but the probes that it writes and removes under the sync path.",
    },
    CommandRow {
        name: "plan",
        command: Command::Plan,
        summary: "what the next destination cycle would do; writes nothing anywhere",
        details: "Compares each destination's sync info with the origin's, reads no secret, and lists every path that \
                  differs\nwith the reason, copies that a change of rules left behind, and a summary. Exit code 0 whatever \
                  it lists.\n\nWith --transforms it reads origin paths from stdin, one a line, asks no server, and says of \
                  each\nwhich rule applies and where it leads.",
    },
    CommandRow {
        name: "verify",
        command: Command::Verify,
        summary: "read both ends and compare the secrets themselves",
        details: "Every path of the origin's sync info is read at both ends. One line for each difference, never with a \
                  value:\n  - missing at the destination        + at the destination only\n  * differs                       \
                    ! can't be read or must not be synced\n  = equal (with --all)\nWhat is at the destination only and was \
                  never written by vsync is shown and changes no exit code;\nwhatever else is not equal makes it 3, once it \
                  was read again: secrets change meanwhile.\n--repair writes what is missing or differs and deletes what a \
                  cycle would, under the role's lock,\nmaxDeletes included; what is mended counts no more.",
    },
    CommandRow {
        name: "status",
        command: Command::Status,
        summary: "what the sync info says: counts, last save, lag of each destination, locks",
        details: "Reads only the stores, and needs no login to any Vault. An end whose store can't be read is shown as \
                  that,\nthe others are shown as well, and the exit code is 1.",
    },
    CommandRow {
        name: "replica",
        command: Command::Replica,
        summary: "serve the local read replica",
        details: "Speaks Vault's read API at replica.listen, asks the origin (origin.vault) for what it does not hold, and \
                  goes on\nanswering when the origin is away. Writes nothing. Runs until it is stopped.",
    },
];

const EACH: &[Command] = &[
    Command::Sync,
    Command::Origin,
    Command::Destination,
    Command::Check,
    Command::Plan,
    Command::Verify,
    Command::Status,
    Command::Replica,
];
/// Those that print data: all but the replica, which stands last.
const ALL: &[Command] = EACH.split_at(EACH.len() - 1).0;
const CYCLES: &[Command] = &[Command::Sync, Command::Origin, Command::Destination];
const DELETES: &[Command] = &[
    Command::Sync,
    Command::Origin,
    Command::Destination,
    Command::Plan,
    Command::Verify,
];
const ANEW: &[Command] = &[Command::Sync, Command::Origin, Command::Destination, Command::Plan];
const COPIES: &[Command] = &[Command::Sync, Command::Destination, Command::Plan];

const fn flag(id: FlagId, long: &'static str, commands: &'static [Command], help: &'static str) -> Flag {
    Flag {
        id,
        long,
        short: None,
        value: None,
        commands,
        help,
    }
}

/// Every flag of this version, besides the config keys.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    Flag { short: Some('c'), value: Some("FILE"),
        ..flag(FlagId::Config, "config", EACH, "the config file (default ./vsync.json, then /etc/vsync/vsync.json)") },
    flag(FlagId::Once, "once", CYCLES, "run one cycle and exit"),
    Flag { short: Some('n'),
        ..flag(FlagId::DryRun, "dry-run", CYCLES, "run one cycle, print its tasks and write nothing") },
    Flag { short: Some('o'), value: Some("FORMAT"),
        ..flag(FlagId::Output, "output", ALL, "what goes to stdout: text or json (default text)") },
    flag(FlagId::AllowMassDelete, "allow-mass-delete", DELETES, "allow more deletes than maxDeletes, and data paths that became empty"),
    flag(FlagId::Full, "full", ANEW, "trust nothing known about the destinations: compare every secret; take a new fingerprintKey"),
    flag(FlagId::Prune, "prune", COPIES, "remove the copies that a change of rules left behind at the destinations"),
    flag(FlagId::Transforms, "transforms", &[Command::Plan], "show for each path on stdin which rule applies and where it leads"),
    flag(FlagId::Repair, "repair", &[Command::Verify], "write what is missing or differs, delete what a cycle would"),
    flag(FlagId::All, "all", &[Command::Verify], "show what is equal, too"),
    Flag { value: Some("SHARE"),
        ..flag(FlagId::Sample, "sample", &[Command::Verify], "compare only this share of the secrets, other ones each time: 10%") },
    Flag { short: Some('V'), ..flag(FlagId::Version, "version", EACH, "print the version") },
    Flag { short: Some('h'), ..flag(FlagId::Help, "help", EACH, "print help, of a command where one is given") },
];

/// The answer to `--version`.
pub fn version() -> String {
    format!("vsync {}\n", env!("CARGO_PKG_VERSION"))
}

/// The answer to `--help`.
pub fn general_help() -> String {
    let mut text = String::from(
        "vsync keeps the secrets of one Vault (the origin) the same in any number of others (the destinations).\n\n\
         Usage: vsync [COMMAND] [FLAGS] [--<config key> VALUE]\n\nCommands:\n",
    );
    for row in COMMANDS {
        text.push_str(&format!("  {:<14}{}\n", row.name, row.summary));
    }
    text.push_str(&format!(
        "  {:<14}{}\n",
        "help", "this text; `vsync help COMMAND`, `vsync help config`"
    ));
    text.push_str("\nFlags:\n");
    text.push_str(&flags_help(FLAGS.iter()));
    text.push_str(KEYS_HELP);
    text.push_str(
        "\nExit codes: 0 done, 1 failed, 2 usage or config, 3 finished but not everything, 130 interrupted.\n",
    );
    text
}

const KEYS_HELP: &str = "
Any config key is a flag too, by its dotted name: --origin.vault.address URL, --destination.tick=5m. Keys that
hold a secret are not; set their variable (VSYNC_ORIGIN_VAULT_TOKEN) or the file's key. `vsync help config`
lists all keys.
";

/// The help of one command.
pub fn command_help(row: &CommandRow) -> String {
    let flags = FLAGS.iter().filter(|flag| flag.commands.contains(&row.command));
    format!(
        "vsync {}: {}\n\n{}\n\nUsage: vsync {0} [FLAGS] [--<config key> VALUE]\n\nFlags:\n{}{KEYS_HELP}",
        row.name,
        row.summary,
        row.details,
        flags_help(flags)
    )
}

fn flags_help(flags: impl Iterator<Item = &'static Flag>) -> String {
    let line = |flag: &Flag| {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        let names = format!("{short}--{}{value}", flag.long);
        format!("  {names:<26}{}\n", flag.help)
    };
    flags.map(line).collect()
}
