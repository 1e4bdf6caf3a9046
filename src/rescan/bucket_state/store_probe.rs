//! Finds out whether the store keeps conditions, before anybody relies on them.

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::StateRun;
use crate::state::remote::head::Probe;
use crate::state::remote::name::StoreTime;

impl StateRun {
    /// Finds out whether the store of the objects keeps conditions, if it is another one than that of the state.
    fn probe_objects(&self) -> Result<Option<String>, StorageError> {
        let Some(transfers) = self.objects.transfers() else { return Ok(None) };
        let objects = transfers.state_objects();
        if objects.place().endpoint == self.access.endpoint()? {
            return Ok(None);
        }
        objects.probe_cheaply(&self.access.context())
    }

    /// Finds out whether the store keeps conditions, unless that is known.
    pub(super) fn probe_store(&mut self) -> Result<(), StorageError> {
        if self.probed {
            return Ok(());
        }
        let endpoint = self.access.endpoint()?;
        let context = self.access.context();
        let known = self.head().and_then(|head| head.probe(&endpoint)).cloned();
        let why = match known {
            Some(probe) if !probe.passed() && self.settings.single_writer => {
                Some("a probe found that it does not keep them".to_owned())
            }
            // A machine that has published here before need not ask.
            Some(probe) if probe.passed() && self.pulled.known_epoch > 0 => None,
            Some(probe) if probe.passed() => self.access.objects()?.probe_cheaply(&context)?,
            // After a failed one: it may keep them by now.
            _ => {
                let found = self.access.objects()?.probe(&context)?;
                let at = self.access.store_time().unwrap_or(StoreTime::new(0));
                let (create, replace, delete) = (found.create, found.replace, found.delete);
                self.probe = Some(Probe { endpoint, at, create, replace, delete });
                found.why
            }
        };
        let why = match why {
            None if self.access.is_elsewhere => self.probe_objects()?,
            why => why,
        };
        if let Some(why) = why {
            if !self.settings.single_writer {
                let what = format!(
                    "the store does not keep conditions, so publishers cannot exclude each other: {why}; if only one \
                     runs at a time, say so with single_writer"
                );
                return Err(StorageError::new(ErrorKind::Unsupported, Operation::State, what));
            }
            self.conditional = false;
            let what =
                "the store does not keep conditions: nothing but the caller excludes a second publisher";
            self.access.trace.warn(what, &[("why", &why)]);
        }
        self.probed = true;
        Ok(())
    }
}
