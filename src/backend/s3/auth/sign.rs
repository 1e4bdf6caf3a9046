//! AWS Signature Version 4. The primitives of rust-s3 know the service `s3` only, while the credentials of a role come from
//! `sts`, and leave copies of the secret key in memory.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName};
use s3::region::Region;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::{ErrorKind, Operation, StorageError};

/// The SHA-256 of an empty body.
pub(crate) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The parts of a request that are signed, each exactly as it goes onto the wire.
pub(crate) struct Signable<'a> {
    pub(crate) method: &'a str,
    /// Percent-encoded, from the leading slash.
    pub(crate) path: &'a str,
    /// Percent-encoded and sorted, without the question mark.
    pub(crate) query: &'a str,
    /// All of these are signed, except those that proxies rewrite. They include `host` and `x-amz-date`, and for S3
    /// `x-amz-content-sha256`.
    pub(crate) headers: &'a HeaderMap,
    /// Hexadecimal SHA-256 of the body.
    pub(crate) payload: &'a str,
}

/// Signs requests to one service in one region. Caches the derived key, which is valid for a day.
#[derive(Debug)]
pub(crate) struct Signer {
    region: Region,
    service: &'static str,
    cached: Mutex<Option<DayKey>>,
}

struct DayKey {
    day: String,
    secret: Zeroizing<String>,
    key: Zeroizing<Mac256>,
}

impl std::fmt::Debug for DayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DayKey([secret])")
    }
}

impl Signer {
    /// `service` is the name that is signed, such as `s3`.
    pub(crate) fn new(region: Region, service: &'static str) -> Self {
        Self { region, service, cached: Mutex::new(None) }
    }

    /// Returns the value of the `Authorization` header.
    pub(crate) fn authorization(
        &self,
        credentials: &Credentials,
        when: SystemTime,
        request: &Signable<'_>,
    ) -> Result<String, StorageError> {
        let (canonical, signed) = canonical_request(request)?;
        let date = amz_date(when);
        let scope = format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service);
        let hash = hex::encode(Sha256::digest(canonical));
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{hash}");
        let signature = self.sign_text(credentials.secret_key(), &date[..8], &text)?;
        let key = credentials.access_key();
        Ok(format!("{ALGORITHM} Credential={key}/{scope},SignedHeaders={signed},Signature={signature}"))
    }

    /// Returns the signature of a text, in hexadecimal. `day` is the date as it is signed, such as `20130524`.
    fn sign_text(&self, secret: &str, day: &str, text: &str) -> Result<String, StorageError> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        // Credentials change when they are renewed, the key also changes every day.
        let kept = cached.take().filter(|kept| kept.day == day && *kept.secret == secret);
        let kept = match kept {
            Some(kept) => kept,
            None => DayKey {
                day: day.to_owned(),
                secret: Zeroizing::new(secret.to_owned()),
                key: self.day_key(secret, day)?,
            },
        };
        let signature = hex::encode(hmac(&*kept.key, text)?);
        *cached = Some(kept);
        Ok(signature)
    }

    /// Derives the key of a day. Each text that holds the secret is wiped, and made in the size that it has at the end.
    fn day_key(&self, secret: &str, day: &str) -> Result<Zeroizing<Mac256>, StorageError> {
        const VERSION: &str = "AWS4";
        let mut first = Zeroizing::new(String::with_capacity(VERSION.len() + secret.len()));
        first.push_str(VERSION);
        first.push_str(secret);
        let mut key = hmac(first.as_bytes(), day)?;
        for part in [self.region.to_string().as_str(), self.service, "aws4_request"] {
            key = hmac(&*key, part)?;
        }
        Ok(key)
    }
}

/// An HMAC-SHA256.
type Mac256 = [u8; 32];

fn hmac(key: &[u8], text: &str) -> Result<Zeroizing<Mac256>, StorageError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(cannot_be_signed)?;
    mac.update(text.as_bytes());
    Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A header that proxies rewrite on the way, those of GCS among them: a signature that covers it is refused there.
const UNSIGNED: HeaderName = http::header::ACCEPT_ENCODING;

/// Returns the canonical request, and the list of signed headers.
///
/// White space at the ends of a value is trimmed. Inside, it is signed as it is sent, as Garage and the S3 API
/// Reference (`Trim`) do. `MinIO` and the AWS SDKs replace a run by one space (`Trimall`); the settings send no runs, so both
/// agree.
fn canonical_request(request: &Signable<'_>) -> Result<(String, String), StorageError> {
    let Signable { method, path, query, headers, payload } = request;
    let mut names: Vec<&str> =
        headers.keys().filter(|name| **name != UNSIGNED).map(HeaderName::as_str).collect();
    names.sort_unstable();
    let signed = names.join(";");
    let mut text = format!("{method}\n{path}\n{query}\n");
    for name in names {
        let values = headers.get_all(name).iter().map(|value| value.to_str().map(str::trim));
        let values = values.collect::<Result<Vec<_>, _>>().map_err(cannot_be_signed)?;
        text.extend([name, ":", &values.join(","), "\n"]);
    }
    text.extend(["\n", &signed, "\n", payload]);
    Ok((text, signed))
}

/// Returns the value of `x-amz-date`, such as `20130524T000000Z`.
pub(crate) fn amz_date(when: SystemTime) -> String {
    let t = OffsetDateTime::from(when);
    let (month, day) = (u8::from(t.month()), t.day());
    format!("{:04}{month:02}{day:02}T{:02}{:02}{:02}Z", t.year(), t.hour(), t.minute(), t.second())
}

fn cannot_be_signed(error: impl std::error::Error + Send + Sync + 'static) -> StorageError {
    StorageError::new(ErrorKind::Config, Operation::Configure, "the request cannot be signed")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PUT_BODY: &str = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";

    fn signature(method: &str, path: &str, query: &str, payload: &str, more: &[(&str, &str)]) -> String {
        let credentials =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        // 24 May 2013, midnight UTC: the moment of the published examples.
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let date = amz_date(when);
        let fixed = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", date.as_str()),
        ];
        let headers: HeaderMap = fixed
            .iter()
            .chain(more)
            .map(|(name, value)| {
                (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
            })
            .collect();
        let request = Signable { method, path, query, headers: &headers, payload };
        let value = Signer::new(Region::UsEast1, "s3").authorization(&credentials, when, &request).unwrap();
        assert!(value.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        ));
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring
    /// Payload in a Single Chunk", its four examples.
    #[test]
    fn the_published_vectors_of_aws_come_out() {
        assert_eq!(
            signature("GET", "/test.txt", "", EMPTY_SHA256, &[("range", "bytes=0-9")]),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let more = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        assert_eq!(
            signature("PUT", "/test%24file.text", "", PUT_BODY, &more),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "/", "lifecycle=", EMPTY_SHA256, &[]),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/", "max-keys=2&prefix=J", EMPTY_SHA256, &[]),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    /// The example of "Create a signed AWS API request" (IAM's `ListUsers`), and `get-vanilla` and
    /// `post-x-www-form-urlencoded` of the test suite of Signature Version 4.
    #[test]
    fn the_published_vectors_of_other_services_come_out() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        // 30 August 2015, 12:36:00 UTC.
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let charset = format!("{FORM}; charset=utf-8");
        let of_form = hex::encode(Sha256::digest("Param1=value1"));
        let list_users = "Action=ListUsers&Version=2010-05-08";
        for (service, host, method, query, content_type, payload, signature) in [
            (
                "iam",
                "iam.amazonaws.com",
                "GET",
                list_users,
                Some(charset.as_str()),
                EMPTY_SHA256,
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
            (
                "service",
                "example.amazonaws.com",
                "GET",
                "",
                None,
                EMPTY_SHA256,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "service",
                "example.amazonaws.com",
                "POST",
                "",
                Some(FORM),
                of_form.as_str(),
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let date = amz_date(when);
            let given = [("host", Some(host)), ("x-amz-date", Some(&date)), ("content-type", content_type)];
            let headers: HeaderMap = given
                .into_iter()
                .filter_map(|(name, value)| {
                    Some((HeaderName::from_static(name), HeaderValue::from_str(value?).unwrap()))
                })
                .collect();
            let request = Signable { method, path: "/", query, headers: &headers, payload };
            let value = Signer::new(Region::UsEast1, service).authorization(&credentials, when, &request);
            assert_eq!(value.unwrap().rsplit_once("Signature=").unwrap().1, signature, "{service} {method}");
        }
    }

    /// Amazon S3 API Reference, "Signature Calculations for the Authorization Header", task 1: each header's name in
    /// lower case, a colon, its trimmed value and a line end, sorted by name; and the names in that order.
    fn canonical_of_the_reference(given: &BTreeMap<String, String>) -> (String, String) {
        let lines: Vec<_> = given.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let lines = lines.concat();
        let names: Vec<_> = given.keys().cloned().collect();
        let names = names.join(";");
        (format!("PUT\n/b/k\na=1\n{lines}\n{names}\n{EMPTY_SHA256}"), names)
    }

    /// Names that begin alike, and go on with what sorts before and behind a colon.
    fn header_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "x-amz-meta-[ab]{1,2}[-.0_~]?[a-c-]{0,3}",
            "x-amz-server-side-encryption(-aws-kms-key-id|-context)?",
            "[a-z][a-z-]{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn headers_are_signed_as_the_reference_says(
            given in proptest::collection::btree_map(header_name(), "[ -~]{0,24}", 1..12),
        ) {
            let headers: HeaderMap = given
                .iter()
                .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
                .collect();
            let request =
                Signable { method: "PUT", path: "/b/k", query: "a=1", headers: &headers, payload: EMPTY_SHA256 };
            prop_assert_eq!(canonical_request(&request).unwrap(), canonical_of_the_reference(&given));
        }
    }

    #[test]
    fn values_are_signed_as_they_are_sent() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-a", HeaderValue::from_static("  two  spaces\t "));
        headers.append("x-amz-meta-a", HeaderValue::from_static("again"));
        let request = Signable { method: "GET", path: "/", query: "", headers: &headers, payload: "p" };
        let (text, names) = canonical_request(&request).unwrap();
        assert_eq!(
            (text.as_str(), names.as_str()),
            ("GET\n/\n\nx-amz-meta-a:two  spaces,again\n\nx-amz-meta-a\np", "x-amz-meta-a")
        );
    }
}
