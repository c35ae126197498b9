// Search results show an excerpt that is fetched from each page. Browsers fetch nothing for a
// page opened from disk: there the list of pages has to do.
if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
