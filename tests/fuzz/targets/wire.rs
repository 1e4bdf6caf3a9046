//! Connections in memory, whose server has its answers ready.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::backend::s3::http::meter::MeteredTransport;

/// The most bytes that are kept of what was sent.
const MOST_SENT: usize = 64 * 1024;

/// A server: its first connection gets the first answer, and so on. Those after the last answer are closed at once.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<State>>);

struct State {
    answers: Vec<Vec<u8>>,
    /// The bytes that come in at a time.
    chunk: usize,
    /// What was sent on each connection.
    sent: Vec<Vec<u8>>,
}

impl Server {
    pub(crate) fn new<'a>(answers: impl IntoIterator<Item = &'a [u8]>, chunk: u8) -> Self {
        let answers = answers.into_iter().map(<[u8]>::to_vec).collect();
        // Most answers come in one piece.
        let chunk = if chunk == 0 { usize::MAX } else { chunk.into() };
        Self(Arc::new(Mutex::new(State { answers, chunk, sent: Vec::new() })))
    }

    /// What was sent on each connection so far.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().sent.clone()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

impl Connector<()> for Server {
    type Out = MeteredTransport<Connection>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let mut state = self.0.lock().unwrap();
        let number = state.sent.len();
        state.sent.push(Vec::new());
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        let answer = state.answers.get(number).cloned().unwrap_or_default();
        let connection =
            Connection { server: self.clone(), number, buffers, answer, at: 0, chunk: state.chunk };
        Ok(Some(MeteredTransport::new(connection)))
    }
}

/// One connection.
pub(crate) struct Connection {
    server: Server,
    number: usize,
    buffers: LazyBuffers,
    answer: Vec<u8>,
    at: usize,
    chunk: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        let mut state = self.server.0.lock().unwrap();
        let sent = &mut state.sent[self.number];
        let room = MOST_SENT.saturating_sub(sent.len());
        sent.extend_from_slice(&output[..amount.min(room)]);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let rest = &self.answer[self.at..];
        let room = self.buffers.input_append_buf();
        let count = rest.len().min(self.chunk).min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        // As the transport of ureq does: a full buffer is not the end.
        if count == 0 && !rest.is_empty() {
            return Err(ureq::Error::Io(io::Error::other("the input buffer is full")));
        }
        self.buffers.input_appended(count);
        self.at += count;
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}
