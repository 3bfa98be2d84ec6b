"""
A node as a part of a bigger application: C{twistd -ny shop.tac}.

Services below C{node.apps} stop before the node leaves the tailnet.
"""

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.web.server import Site
from twisted.web.static import Data

from tsrt import Node, NodeConfig

application = Application("shop")
page = Data(b"open\n", "text/plain")
page.isLeaf = True
site = Site(page)

node = Node(reactor, NodeConfig.fromEnvironment(hostname="shop", stateDir="shop-state"))
node.setServiceParent(application)

StreamServerEndpointService(node.serverEndpoint(80), site).setServiceParent(node.apps)
