//! The replica as a process: its service manager is told how it goes, and the exit code tells how it went.

use std::thread;

use super::Systemd;
use crate::config::ReplicaSettings;
use crate::replica::Serving;
use crate::scope::Scope;

/// Serves until the scope is done; the exit code.
pub fn serve_replica(settings: ReplicaSettings, scope: &Scope) -> u8 {
    let systemd = Systemd::new(settings.service.clone());
    let origin = settings.vault.address.clone();
    let serving = match Serving::start(settings) {
        Ok(serving) => serving,
        Err(error) => {
            log::error!("replica: {error}");
            return 1;
        }
    };
    let line = format!("replica of {origin}: listens at {}", serving.listen());
    log::info!("{line}");
    systemd.ready();
    systemd.status(&line);
    thread::scope(|threads| {
        let (_done, alive) = scope.child();
        let systemd = &systemd;
        threads.spawn(move || {
            while let Some(interval) = systemd.interval() {
                systemd.alive();
                if !alive.sleep(interval) {
                    return;
                }
            }
        });
        serving.run(scope);
    });
    systemd.stopping();
    0
}
