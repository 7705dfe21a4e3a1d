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
        details: "Runs whichever roles the config holds: an origin with mounts, and each destination.",
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
];

const ALL: &[Command] = &[Command::Sync, Command::Origin, Command::Destination, Command::Check];
const CYCLES: &[Command] = &[Command::Sync, Command::Origin, Command::Destination];
const COPIES: &[Command] = &[Command::Sync, Command::Destination];

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
        ..flag(FlagId::Config, "config", ALL, "the config file (default ./vsync.json, then /etc/vsync/vsync.json)") },
    flag(FlagId::Once, "once", CYCLES, "run one cycle and exit"),
    Flag { short: Some('n'),
        ..flag(FlagId::DryRun, "dry-run", CYCLES, "run one cycle, print its tasks and write nothing") },
    Flag { short: Some('o'), value: Some("FORMAT"),
        ..flag(FlagId::Output, "output", ALL, "what goes to stdout: text or json (default text)") },
    flag(FlagId::AllowMassDelete, "allow-mass-delete", CYCLES, "allow more deletes than maxDeletes, and data paths that became empty"),
    flag(FlagId::Full, "full", CYCLES, "trust nothing known about the destinations: compare every secret; take a new fingerprintKey"),
    flag(FlagId::Prune, "prune", COPIES, "remove the copies that a change of rules left behind at the destinations"),
    Flag { short: Some('V'), ..flag(FlagId::Version, "version", ALL, "print the version") },
    Flag { short: Some('h'), ..flag(FlagId::Help, "help", ALL, "print help, of a command where one is given") },
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
