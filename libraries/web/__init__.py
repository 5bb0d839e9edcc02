"""Images from the web: searched for, and downloaded safely, politely, and never twice."""
