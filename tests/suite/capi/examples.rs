//! The examples in C and Python, as their readers would run them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use crate::capi::programs::{Host, Language, Link, compile, ended_well, library, manifest};
use crate::support::World;
use crate::support::oracle::check_idle;
use crate::support::server::{exchange, try_http_get};

const TWO_WAYS: [(Language, Link); 4] = [
    (Language::C11, Link::Archive),
    (Language::C11, Link::Shared),
    (Language::Cpp17, Link::Archive),
    (Language::Cpp17, Link::Shared),
];

fn example(name: &str) -> PathBuf {
    manifest().join("examples").join(name)
}

#[test]
fn publish_c_publishes_as_c_and_as_cpp() {
    for (language, link) in TWO_WAYS {
        let host = Host::new(World::new());
        let program = compile(&example("c/publish.c"), language, link, &[], host.folder.path());
        let publish = || {
            let mut command = Command::new(&program);
            command.env_clear().arg(host.path("brigade.toml"));
            command
        };
        let printed = ended_well(&publish().output().unwrap());
        assert!(printed.contains("\"outcome\":\"published\""), "{printed}");
        assert_eq!(host.world.keys(), ["index.html", "maps/a.pak", "maps/b.pak"]);
        let printed = ended_well(&publish().arg("live").output().unwrap());
        assert!(printed.contains("\"outcome\":\"unchanged\""), "{printed}");
        let failed = publish().arg("nobody").output().unwrap();
        let said = String::from_utf8(failed.stderr).unwrap();
        assert!(failed.status.code() == Some(1) && said.contains("it has live"), "{said}");
        // What it could not publish, it does not call published.
        host.world.write("index.html", "<b> and more");
        host.world.proxy.refuse();
        let offline = publish().output().unwrap();
        let said = String::from_utf8(offline.stdout).unwrap();
        assert!(offline.status.code() == Some(1) && said.contains("\"outcome\":\"local_only\""), "{said}");
    }
}

#[test]
fn the_manual_shows_publish_c_as_it_is() {
    let manual = std::fs::read_to_string(manifest().join("src/guide/embedding.md")).unwrap();
    let program = std::fs::read_to_string(example("c/publish.c")).unwrap();
    assert!(program.lines().count() <= 25 && manual.contains(&format!("```c\n{program}```")));
}

#[test]
fn publish_py_publishes_by_ctypes() {
    let Ok(python) = which("python3") else {
        eprintln!("skipped: there is no python3 here");
        return;
    };
    let host = Host::new(World::new());
    let mut command = Command::new(python);
    command
        .env_clear()
        .arg(example("python/publish.py"))
        .arg(&library().shared)
        .arg(host.path("brigade.toml"));
    assert_eq!(ended_well(&command.output().unwrap()), "published: 3 uploaded, 0 deleted\n");
    assert_eq!(host.world.keys(), ["index.html", "maps/a.pak", "maps/b.pak"]);
}

fn which(program: &str) -> Result<PathBuf, ()> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.exists()).ok_or(())
}

/// A server under test, ended by SIGTERM.
struct Server {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Waits for a line that has this in it.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        let line = self.lines.iter().find(|line| line.contains(text));
        assert!(line.is_some(), "{text:?} was never said");
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn prefork_server_c_redirects_from_the_catalog() {
    for (language, link) in TWO_WAYS {
        let host = Host::new(World::new());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let program = compile(&example("c/prefork_server.c"), language, link, &[], host.folder.path());
        let mut command = Command::new(program);
        command.env_clear().arg(host.path("brigade.toml")).arg(host.catalog()).args([&port, "3", "1"]);
        let server = Server::start(command);
        server.wait_for("rescan: published, 3 uploaded");
        let place = format!("127.0.0.1:{port}");
        let url = |path: &str| format!("http://{place}/{path}");
        // The catalog is looked at once a second.
        while try_http_get(&url("index.html")).unwrap().0 == 503 {
            std::thread::yield_now();
        }
        let answer =
            exchange(&place, b"GET /maps%2Fa.pak?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .unwrap();
        let (status, headers, _) = answer;
        assert_eq!(status, 302);
        let object = &headers["location"];
        assert!(object.ends_with("/site/maps/a.pak"), "{object}");
        assert_eq!(try_http_get(&url("nothing")).unwrap().0, 404);
        // Clients that send many requests and do not wait for an answer killed the workers, by SIGPIPE.
        for _ in 0..20 {
            let mut rude = TcpStream::connect(&place).unwrap();
            rude.write_all(&b"GET /index.html HTTP/1.1\r\n\r\n".repeat(500)).unwrap();
        }
        assert_eq!(try_http_get(&url("index.html")).unwrap().0, 302);
        host.world.write("new.html", "new");
        server.wait_for("rescan: published, 1 uploaded");
        while try_http_get(&url("new.html")).unwrap().0 == 404 {
            std::thread::yield_now();
        }
        server.stop();
        check_idle(&host.world, &host.world.orchestrator());
    }
}
