//! A TCP pipe in front of a port, which can be cut: for a node of a cluster that the others no longer reach.
//!
//! It knows nothing of what passes, so TLS passes too. While it is cut, new connections are taken and closed.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::process;

/// The pipe. Open until it is cut.
pub struct Pipe {
    state: Arc<Mutex<State>>,
    port: u16,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    is_over: bool,
    sockets: Vec<TcpStream>,
    workers: Vec<JoinHandle<()>>,
}

impl Pipe {
    /// A pipe on a free port in front of `upstream` on loopback, where something may listen only later.
    pub fn start(upstream: u16) -> Pipe {
        let [port] = process::free_ports();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if lock(&shared).is_over {
                    return;
                }
                // What can't be connected is closed by being dropped.
                let _ = connect(&shared, client, upstream);
            }
        });
        Pipe {
            state,
            port,
            accepting: Some(accepting),
        }
    }

    /// The port to give to others.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the connections there are, and all that come.
    pub fn cut(&self) {
        let mut state = lock(&self.state);
        state.is_cut = true;
        state.close_all();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        lock(&self.state).is_cut = false;
    }
}

impl State {
    fn close_all(&mut self) {
        for socket in self.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.is_over = true;
            state.close_all();
        }
        // The listener only looks at the flag when somebody connects.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let workers = std::mem::take(&mut lock(&self.state).workers);
        for worker in workers {
            let _ = worker.join();
        }
    }
}

fn connect(state: &Mutex<State>, client: TcpStream, upstream: u16) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", upstream))?;
    let mut state = lock(state);
    if state.is_cut {
        return Ok(());
    }
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        state.sockets.push(from.try_clone()?);
        state.workers.push(std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        }));
    }
    Ok(())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
