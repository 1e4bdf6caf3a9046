//! A page of a listing of objects.

use crate::key::is_reserved;

/// The key of a publisher's head, from which everything else of its state is found.
pub(crate) const STATE_HEAD: &str = ".brigade/head";

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The object's name without the prefix.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// The `ETag`, if the listing has one.
    pub etag: Option<String>,
}

/// A page of a listing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Page {
    /// The objects, in the store's order.
    pub objects: Vec<Listed>,
    /// The keys that a listing of the prefix leaves out of `objects`: those of a folder `.brigade` and below it.
    pub reserved: Vec<String>,
    /// The folders, each with its final `/`, whose `.brigade/head` is on this page: all objects below such a folder
    /// belong to another publisher.
    pub others: Vec<String>,
    /// The continuation token of the next page; `None` at the end.
    pub next: Option<String>,
}

impl Page {
    /// Leaves out the objects of all publishers' states, and notes which folders belong to other publishers.
    pub(crate) fn without_states(mut self) -> Self {
        for object in self.objects.extract_if(.., |object| is_reserved(&object.key)) {
            self.others.extend(folder_of_head(&object.key).map(str::to_owned));
            self.reserved.push(object.key);
        }
        self
    }

    /// Returns every listed key, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(|object| object.key.as_str()).chain(self.reserved.iter().map(String::as_str))
    }
}

/// Returns the folder whose publisher keeps its head under this key; `None` for our own head, and for any other key. A
/// head inside of a state is an object of that state.
fn folder_of_head(key: &str) -> Option<&str> {
    let folder = key.strip_suffix(STATE_HEAD)?;
    (folder.ends_with('/') && !is_reserved(folder)).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_left_out_and_their_heads_tell_whose_a_folder_is() {
        let listed = |key: &str| Listed { key: key.to_owned(), size: 1, etag: None };
        let keys = [
            ".brigade",
            ".brigade/head",
            ".brigade/x/.brigade/head",
            "a",
            "a/!",
            "a/.brigade/delta/1",
            "a/.brigade/head",
            "a/b/.brigade/head",
            "a/.brigade/b/.brigade/head",
            "a.brigade/head",
            "c/.brigade",
            "c/.brigade/header",
            "c/.brigade/x/head",
            "c/d/.brigade/head/x",
            "e//.brigade/head",
            "z",
        ];
        let page = Page { objects: keys.map(listed).into(), next: Some("t".to_owned()), ..Page::default() };
        let page = page.without_states();
        let left: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(left, ["a", "a/!", "a.brigade/head", "z"]);
        assert_eq!(page.others, ["a/", "a/b/", "e//"]);
        let mut all: Vec<_> = page.keys().collect();
        let mut expected = keys.to_vec();
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!((all, page.next.as_deref()), (expected, Some("t")));
    }
}
