"""Tools that come along: HTTP, files, SQL, mail, webhooks, Telegram, and those of MCP servers.

Each is made with what it may reach: `app.add_tool(http_request(allow=["api.example.com"]))`.
"""

from pilothouse.tools.files import read_file as read_file
from pilothouse.tools.files import write_file as write_file
from pilothouse.tools.http import http_request as http_request
from pilothouse.tools.mail import send_email as send_email
from pilothouse.tools.mcp import McpServer as McpServer
from pilothouse.tools.messages import telegram as telegram
from pilothouse.tools.messages import webhook as webhook
from pilothouse.tools.sql import sql_query as sql_query

__all__ = ["McpServer", "http_request", "read_file", "send_email", "sql_query", "telegram", "webhook", "write_file"]
