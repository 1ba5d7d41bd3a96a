"""The studio: annotate samples, fit a few-shot LSE and edit with it in the browser.

`session` is the Python API, `server` and `security` put it on HTTP (API.md), `lanes` are the two
processes that compute. The web process imports no torch; `compute` runs in the lanes alone.
"""
