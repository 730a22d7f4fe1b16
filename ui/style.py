"""The style sheet of the page's own pieces.  It knows their class names, and takes every colour from the theme."""

CSS = """
:root { --lr-mark: #fbe6a2; --lr-mark-ink: #3d2c00; --lr-up: #2f8f5b; --lr-down: #b9b9b2; --lr-note: #fbf6e9;
  --lr-note-edge: #d9b14a; --lr-panel: #ffffff; }
:root.dark, .dark { --lr-mark: #6b5415; --lr-mark-ink: #fdf1cc; --lr-up: #54c08a; --lr-down: #5b5e5c;
  --lr-note: #262317; --lr-note-edge: #a8873a; --lr-panel: var(--neutral-900); }
:root body.dark { --color-accent: var(--primary-400); }
footer { display: none !important; }
.gradio-container { width: 100% !important; max-width: 1080px !important; margin: 0 auto !important; }
.gradio-container > .main { box-sizing: border-box; max-width: 100%; padding: 40px 32px 64px !important; }
.gradio-container main.contain { padding: 0 !important; }
.gradio-container .form { background: transparent; gap: 14px; border-radius: 0; overflow: visible; }
.gradio-container .lr-go { flex: 0 0 auto; width: auto; min-width: 132px; align-self: flex-start; }
#caption-picture { border: 1px solid var(--border-color-primary); border-radius: 10px; background: var(--lr-panel);
  overflow: hidden; }
#caption-picture .image-frame img { background: #fff; }
input[type=range] { --neutral-200: var(--input-border-color); }
.gradio-container .block:has(input[type=range]) { overflow: visible !important; }
.gradio-container input[type=range]:focus-visible { outline: 2px solid var(--primary-500); outline-offset: 4px;
  border-radius: 2px; }
#connection { margin-top: 20px; padding-top: 6px; border-top: 1px solid var(--border-color-primary); border-radius: 0; }
#connection > button { font-size: 14px; color: var(--body-text-color-subdued); }
#connection .form { max-width: 420px; }
.lr-connection { font-size: 14px; }
#translate-swap { align-self: end; }
.lr-examples .label svg { display: none; }
.lr-examples { margin-top: 14px; }
.lr-examples .gallery-item { color: var(--body-text-color); border-color: var(--input-border-color); text-align: left;
  background: transparent; }
.lr-examples .gallery-item:hover { border-color: var(--primary-500); }

.lr-header { display: flex; justify-content: space-between; align-items: flex-end; gap: 20px 40px; flex-wrap: wrap;
  padding-bottom: 8px; }
.lr-header > div:first-child { flex: 1 1 320px; max-width: 460px; }
.lr-header h1 { font-size: 30px; line-height: 1.1; font-weight: 680; letter-spacing: -0.02em; margin: 0 0 6px;
  color: var(--body-text-color); }
.lr-header p { margin: 0; color: var(--body-text-color-subdued); font-size: 15px; line-height: 1.5; }
.lr-standings { display: grid; grid-template-columns: repeat(4, auto); gap: 8px 28px; margin: 0; }
.lr-standing { position: relative; padding-left: 16px; min-width: 0; }
.lr-standing::before { content: ""; position: absolute; left: 0; top: 7px; width: 8px; height: 8px; border-radius: 50%;
  background: var(--lr-up); }
.lr-standing.lr-down::before { background: transparent; box-shadow: inset 0 0 0 2px var(--lr-down); }
.lr-standing dt { font-size: 13px; font-weight: 600; color: var(--body-text-color); }
.lr-standing dd span { color: inherit; white-space: nowrap; }
.lr-standing dd { margin: 0; font-size: 13px; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }

.lr-panel { background: var(--lr-panel); border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: 22px 24px; min-height: 176px; display: flex; flex-direction: column; gap: 14px; box-sizing: border-box; }
.lr-panel p { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.lr-empty, .lr-working { align-items: center; justify-content: center; text-align: center;
  color: var(--body-text-color-subdued); font-size: 15px; background: transparent; border-style: dashed; }
.lr-said { font-size: 22px; line-height: 1.35; font-weight: 600; letter-spacing: -0.01em;
  color: var(--body-text-color); }
.lr-context { font-size: 16px; line-height: 1.65; color: var(--body-text-color); }
.lr-context mark { background: var(--lr-mark); color: var(--lr-mark-ink); padding: 1px 4px; border-radius: 4px;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.lr-confidence { display: flex; align-items: center; gap: 12px; font-size: 13px;
  color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; white-space: nowrap; }
.lr-bar { flex: 0 1 180px; height: 6px; border-radius: 3px; background: var(--border-color-primary); overflow: hidden; }
.lr-bar > div { height: 100%; border-radius: 3px; background: var(--primary-500); }
.lr-also { font-size: 14px; color: var(--body-text-color-subdued); display: flex; flex-wrap: wrap; gap: 4px 12px; }
.lr-also ul { display: contents; list-style: none; }
.lr-also li { margin: 0; padding: 0; color: var(--body-text-color); list-style: none; }
.lr-also li span { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.lr-by span { color: inherit; }
.lr-by { margin-top: auto !important; padding-top: 4px; font-size: 13px; color: var(--body-text-color-subdued); }
.lr-truth { font-size: 15px; line-height: 1.5; padding-left: 14px; border-left: 3px solid var(--lr-up);
  color: var(--body-text-color-subdued); }
.lr-truth.lr-wrong { border-left-color: var(--lr-note-edge); }
.lr-truth strong { color: var(--body-text-color); font-weight: 600; }
.lr-written { font-size: 17px; line-height: 1.65; color: var(--body-text-color); }
.lr-written > span:first-child { color: var(--body-text-color-subdued); }
.lr-caret { display: inline-block; width: 2px; height: 1.1em; margin-left: 2px; vertical-align: -0.18em;
  background: var(--primary-500); animation: lr-blink 1s steps(2) infinite; }
@keyframes lr-blink { to { opacity: 0; } }

.lr-models { width: 100%; border-collapse: collapse; font-size: 14px; line-height: 1.5; }
.lr-models th { text-align: left; font-weight: 600; color: var(--body-text-color-subdued); }
.lr-models th, .lr-models td { padding: 8px 12px 8px 0; border-bottom: 1px solid var(--border-color-primary);
  overflow-wrap: anywhere; vertical-align: top; }

.lr-note { background: var(--lr-note); border-left: 3px solid var(--lr-note-edge); border-radius: 4px 8px 8px 4px;
  padding: 11px 14px; font-size: 14px; line-height: 1.5; color: var(--body-text-color); overflow-wrap: anywhere; }
.lr-note strong { font-weight: 600; }
.lr-note code { font-size: 0.92em; background: transparent; padding: 0; border: 0; color: inherit; }

.lr-working p { opacity: 0; animation: lr-late 0.4s ease 5s forwards; font-size: 14px; }
@keyframes lr-late { to { opacity: 1; } }
.lr-dots { display: inline-flex; gap: 7px; padding-top: 28px; }
.lr-dots i { width: 8px; height: 8px; border-radius: 50%; background: var(--primary-500);
  animation: lr-pulse 1.2s ease-in-out infinite; }
.lr-dots i:nth-child(2) { animation-delay: 0.15s; }
.lr-dots i:nth-child(3) { animation-delay: 0.3s; }
@keyframes lr-pulse { 0%, 60%, 100% { opacity: 0.25; } 30% { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .lr-dots i, .lr-caret { animation: none; } }

@media (max-width: 640px) {
  .gradio-container > .main { padding: 28px 18px 40px !important; }
  .lr-header > div:first-child { flex-basis: 100%; max-width: none; }
  .lr-standings { grid-template-columns: 1fr 1fr; width: 100%; }
  .gradio-container .lr-go { flex: 1 1 auto; align-self: stretch; }
  .lr-panel { padding: 18px; min-height: 128px; }
  .tab-wrapper .tab-container button { padding: 0 7px; }
  .lr-panel .lr-models thead { display: none; }
  .lr-panel .lr-models tr, .lr-panel .lr-models td { display: block; }
  .lr-panel .lr-models tr { padding: 10px 0; border-bottom: 1px solid var(--border-color-primary); }
  .lr-panel .lr-models tr:last-child { border-bottom: 0; }
  .lr-panel .lr-models td { padding: 0; border: 0; }
  .lr-panel .lr-models td:first-child { font-weight: 600; }
  .lr-panel .lr-models td:empty { display: none; }
  .lr-models td:nth-child(3)::before { content: "Runs on "; }
  .lr-models td:nth-child(5)::before { content: "Registered: "; }
}
"""
