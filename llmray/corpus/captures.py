"""A record of a web archive (WARC, https://iipc.github.io/warc-specifications; ARC) → a row, where it is a page.

It does not know what surrounds the record in its file.  Requests, metadata and the like are no pages; every answer of a
server is one, and its `text` is empty where it is no text (a picture, a PDF) or has none.
"""

import binascii
import re
from typing import IO, Any

from resiliparse.parse.encoding import detect_mime
from warcio.digestverifyingreader import DigestVerifyingReader
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord, ArcWarcRecordLoader

from llmray.corpus.damage import CUT
from llmray.corpus.pages import DEPTH, decoded, main_text
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row

PAGES = ("response", "resource", "conversion")
ADDRESSES = ("http:", "https:", "ftp:", "file:")
"""Crawlers keep notes of their own under others, such as `metadata:` and `dns:`."""
HTML = ("text/html", "application/xhtml+xml")
PLAIN = "text/plain"
PAGE_BYTES = 8 << 20
"""Common Crawl cuts pages at 5 MiB."""
CHUNK_BYTES = 1 << 16
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
DIGESTS = ("WARC-Block-Digest", "WARC-Payload-Digest")
DIGEST = re.compile(r"[a-z0-9-]+:[a-z0-9+/=_-]+", re.IGNORECASE | re.ASCII)
HEADER = "bad header"


class Captures:
    """Reads the records of one file, which are all WARC's or all ARC's."""

    def __init__(self) -> None:
        self.loader = _Loader(verify_http=False, arc2warc=True)
        self.format: str | None = None

    def read(self, where: str, stream: IO[bytes], line: bytes) -> Row | Bad | None:
        """The row of the record whose first line is `line` and whose rest comes next; None where it is no page.

        The stream is left after the record, after a `Bad` of kind `HEADER` somewhere in it.
        """
        self.format = self.format or _format(line)
        if self.format is None:
            return Bad(where, HEADER, f"neither WARC nor ARC: found {line[:60]!r}")
        try:
            record = self.loader.parse_record_stream(stream, line, self.format, check_digests=True)
        except (ArchiveLoadFailed, ValueError) as error:
            return Bad(where, HEADER, f"not the header of a record: {str(error)[:120]}")
        length = record.rec_headers.get_header("Content-Length")
        if not (length or "").isdecimal():
            return Bad(where, HEADER, f"the record's length is {length!r}, which is no number")
        if not record.rec_type:
            return Bad(where, HEADER, "the record has no WARC-Type")
        return _checked(where, record)


class _Loader(ArcWarcRecordLoader):
    """warcio's, made to bear headers that are damaged, a page without its address, and one that ends in its header."""

    def wrap_digest_verifying_stream(self, stream: Any, kind: str, headers: Any, checker: Any, length: int) -> Any:
        for digest in map(headers.get_header, DIGESTS):
            if digest and not DIGEST.fullmatch(digest):
                raise ArchiveLoadFailed(f"{digest!r} is no digest")
        return super().wrap_digest_verifying_stream(stream, kind, headers, checker, length)

    def load_http_headers(self, rec_type: str, uri: str | None, stream: Any, length: int | None) -> Any:
        try:
            return super().load_http_headers(rec_type, uri or "", stream, length)
        except EOFError:
            return None


def _format(line: bytes) -> str | None:
    if line.startswith(b"WARC/"):
        return "warc"
    return "arc" if line.startswith(b"filedesc://") else None


def _checked(where: str, record: ArcWarcRecord) -> Row | Bad | None:
    """The record's row, once all of it is read and its length and digests are found right."""
    try:
        found = _page(where, record)
        while record.raw_stream.read(CHUNK_BYTES):
            pass
    except binascii.Error as error:
        return Bad(where, "bad digest", f"its digest is in no known form: {error}")
    missing = record.raw_stream.limit
    if missing and not _is_whole(record, missing):
        return Bad(where, CUT, f"damaged or cut short: {missing} of {record.length} bytes are missing")
    if record.digest_checker.problems:
        return Bad(where, "bad digest", f"not what was recorded: {record.digest_checker.problems[0]}")
    return found


def _is_whole(record: ArcWarcRecord, missing: int) -> bool:
    """Whether the server's own count of bytes was reached, for want of a digest: some ARC writers counted too many."""
    told = record.http_headers.get_header("Content-Length", "") if record.http_headers else ""
    undigested = not isinstance(record.raw_stream, DigestVerifyingReader)
    return undigested and told.isdecimal() and record.payload_length - missing >= int(told)


def _page(where: str, record: ArcWarcRecord) -> Row | Bad | None:
    headers, http = record.rec_headers, record.http_headers
    url = headers.get_header("WARC-Target-URI", "")
    if record.rec_type not in PAGES or not url.lower().startswith(ADDRESSES):
        return None
    status = http.get_statuscode() if http else None
    if record.rec_type == "response" and not (status or "").isdecimal() and url.lower().startswith("http"):
        return Bad(where, "no status", f"an answer from {url} without HTTP's status")
    told = (http.get_header("Content-Type") if http else record.content_type) or ""
    mime = (headers.get_header("WARC-Identified-Payload-Type") or told.partition(";")[0]).strip().lower()
    body = b"" if mime and mime not in (*HTML, PLAIN) else record.content_stream().read(PAGE_BYTES + 1)
    mime = mime or detect_mime(body)
    charset = CHARSET.search(told)
    text = _text(where, mime, body, charset[1] if charset else None)
    if isinstance(text, Bad):
        return text
    return where, {
        "text": text,
        "url": url,
        "date": headers.get_header("WARC-Date"),
        "mime": mime,
        "status": int(status) if status else None,
        "language": headers.get_header("WARC-Identified-Content-Language"),
    }


def _text(where: str, mime: str, body: bytes, charset: str | None) -> str | Bad:
    if len(body) > PAGE_BYTES:
        return Bad(where, "too large", f"a page of more than {PAGE_BYTES >> 20} MiB")
    if mime == PLAIN:
        return decoded(body, charset or "utf-8")
    text = main_text(decoded(body, charset)) if mime in HTML else ""
    return Bad(where, "nested too deep", f"elements nested deeper than {DEPTH}") if text is None else text
