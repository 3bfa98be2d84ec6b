"""The C{tailnet:} prefix of endpoint strings."""

from tsrt._endpointplugins import TailnetClientParser, TailnetServerParser

tailnetClient = TailnetClientParser()
tailnetServer = TailnetServerParser()
